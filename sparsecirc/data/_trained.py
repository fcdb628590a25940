"""Trained weights of networks published by others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecirc.data._store import DataFile, Progress, read
from sparsecirc.errors import FileFormatError

_LYRA_URL = "https://raw.githubusercontent.com/google/lyra/91173dbe4543238a211108bf945411257afe1a2b/sparse_matmul/layers/testdata/"
_PREFIX = "768_512_95_4x4_"
_WAVERNN: dict[str, tuple[str, tuple[int, ...]]] = {
    "QRhat_weights": (
        "e5d2a24fbe78664775f96fbaacebaa46c2b63701f12b8721465da862dc7bf12c",
        (3072, 2),
    ),
    "What_weights": (
        "51dadf6856139091c3adec8132ca4fd0dd54e1c06de63568fd5e02af034d0a64",
        (1536,),
    ),
    "coarselogit_bias": (
        "350d858a3451faed2f540db8d21193141e2f391e677a14216b1d8b68ccc34df7",
        (256,),
    ),
    "coarselogit_mask": (
        "372ad1cee289b9eec4537b39c224b2ed5de3869c0bfb6f45e100e180b5105e2d",
        (256, 512),
    ),
    "coarselogit_weights": (
        "18d9fc64cb3951b72244fcd9673bb2cbedce6e01da1931d281b81330b14be7ca",
        (256, 512),
    ),
    "coarseproj_bias": (
        "6d3bc14123b5e105fb60eee377ec5c65f1e9475d11c8d79b74b1a77b8e7ec175",
        (512,),
    ),
    "coarseproj_mask": (
        "e90f86b8333b738e27c7ed922ca4d843141b4c6eaece40ea1405dc4119873bf3",
        (512, 512),
    ),
    "coarseproj_weights": (
        "c5ccd0588eb79ee4bd19a2bc6a7440430883f9a09c9f7132125fe70cb3f7c55e",
        (512, 512),
    ),
    "finelogit_bias": (
        "9ad701ca2a24e9bb06dec3f9fa43f257fe1a9614acd14d154ab2160a63878955",
        (256,),
    ),
    "finelogit_mask": (
        "5484df66e4695807b233c57eb2cfea23871ac95080d8e7d8e2267567bf01ded5",
        (256, 512),
    ),
    "finelogit_weights": (
        "65cd86d7f8c2c7a0b53d4f30466cea676baf4e4be90763c1c2bcc4f41cb3d575",
        (256, 512),
    ),
    "fineproj_bias": (
        "50bed0d88fccc87225eb9c26fe81a014b99890b6a40dc8995acefb6de364a29d",
        (512,),
    ),
    "fineproj_mask": (
        "09a5ea9f9f8091d22216bac73a733db4bba1375bf41aef4adabb6086514081c5",
        (512, 512),
    ),
    "fineproj_weights": (
        "3e4da06c69a81efb30997bedea2dc79126485c9237e8c114d69da1cd679148c7",
        (512, 512),
    ),
    "wavernn_gru_bias": (
        "d92db535b89fe9a6d948bcb4fa99256d2bc327c775625ab02105eea9901ee23d",
        (3072,),
    ),
    "wavernn_gru_mask": (
        "ea020d41c8155b883d8e36b4402e1133cdd9bbe790920f7eb6a29c5d005d688b",
        (3072, 1024),
    ),
    "wavernn_gru_weights": (
        "08a6678ef6935137cf0d14fd6fa8d462abf357c57c546e9656a4178cc1cd399e",
        (3072, 1024),
    ),
}


def wavernn_768(*, progress: Progress | None = None) -> dict[str, NDArray[np.float32]]:
    """The 95 % sparse WaveRNN that ships as test data of Google's Lyra codec (Apache-2.0), float32.

    Keys are ``"<layer>_<what>"``: ``wavernn_gru_weights`` (3072, 1024) is a torch ``weight_hh`` in gate order r, z, n
    with ``wavernn_gru_bias`` (3072,) its ``bias_hh``; ``coarseproj``, ``fineproj`` (512, 512) and ``coarselogit``,
    ``finelogit`` (256, 512) are linear; every ``*_mask`` is 0/1 of the shape of its weights, in 4 x 4 blocks.
    ``QRhat_weights`` (3072, 2) is its ``weight_ih`` for the previous (coarse, fine) sample; ``What_weights`` (1536,)
    feeds the current coarse sample to the half of the units that predicts the fine one.
    Source: Kalchbrenner et al. 2018, arXiv:1802.08435, section 3.

    Raises:
        UsageError: the files are neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
        FileFormatError: a file is damaged.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for key, (digest, shape) in _WAVERNN.items():
        name = f"{_PREFIX}{key}.raw.gz"
        content = read(DataFile("models/wavernn_768", name, _LYRA_URL + name, digest), progress=progress)
        flat = np.frombuffer(content, dtype="<f4").astype(np.float32)
        if flat.size != int(np.prod(shape)):
            raise FileFormatError(f"{name} holds {flat.size} numbers: expected {int(np.prod(shape))}")
        arrays[key] = flat.reshape(shape)
    return arrays
