"""Images read row by row: handwritten digits of scikit-learn, MNIST and Fashion-MNIST."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.data._dataset import Dataset
from sparsecirc.data._store import DataFile, Progress, read
from sparsecirc.errors import FileFormatError, missing_extra

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def parse_idx(data: bytes, origin: str) -> NDArray[np.uint8]:
    """Array of an idx file of bytes: two zero bytes, type 0x08, the rank, then each axis as big-endian uint32.

    Raises:
        FileFormatError: another magic number or number of bytes.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise FileFormatError(f"{origin} starts with {data[:4].hex() or 'nothing'}: expected an idx file (000008..)")
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise FileFormatError(f"{origin} ends inside its header of {rank} axes: it is truncated")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    body = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * rank)
    if body.size != int(np.prod(shape)):
        raise FileFormatError(f"{origin} holds {body.size} bytes after its header: expected {int(np.prod(shape))}")
    return body.reshape(shape)


def mnist(*, progress: Progress | None = None) -> Dataset:
    """MNIST, 60000 + 10000 images of 28 x 28, rows as 28 steps of 28 features in [0, 1] (LeCun et al. 1998).

    Raises:
        UsageError: the files are neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
        FileFormatError: a file is damaged.
    """
    return _idx_set("mnist", "mnist", _MNIST_URL, _MNIST, "LeCun, Cortes and Burges; CC BY-SA 3.0", progress)


def fashion_mnist(*, progress: Progress | None = None) -> Dataset:
    """Fashion-MNIST, shaped like MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747).

    Raises:
        UsageError: the files are neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
        FileFormatError: a file is damaged.
    """
    return _idx_set("fashion_mnist", "fashion-mnist", _FASHION_URL, _FASHION, "Zalando SE; MIT", progress)


def _idx_set(name: str, folder: str, url: str, files: dict[str, str], note: str, progress: Progress | None) -> Dataset:
    arrays = [
        parse_idx(read(DataFile(folder, n, url + n, digest), progress=progress), n) for n, digest in files.items()
    ]
    x_train, y_train, x_test, y_test = arrays
    return Dataset(name, _unit(x_train), y_train.astype(np.int64), _unit(x_test), y_test.astype(np.int64), note=note)


def _unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.astype(np.float32) / np.float32(255)


def digits(*, test_fraction: float = 0.25, seed: int = 0) -> Dataset:
    """scikit-learn's 1797 handwritten digits of 8 x 8, rows as 8 steps of 8 features in [0, 1]; needs no file.

    The split is stratified and depends on ``seed`` only (Alpaydin and Kaynak 1998, UCI).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_extra("scikit-learn", "demo", "the data set 'digits'") from error
    bunch: Any = load_digits()
    x = (bunch.images / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        test[members[: round(test_fraction * len(members))]] = True
    return Dataset(
        "digits", x[~test], y[~test], x[test], y[test], note="scikit-learn load_digits, UCI optical digits; BSD-3"
    )
