"""Every engine on as many threads as the program, none more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import util

from sparsecirc._machine import usable_cores

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def pinned_threads(threads: int) -> Iterator[str]:
    """Hold torch, OpenMP and the BLAS of numpy and scipy to ``threads`` threads for as long as this lasts.

    Yields:
        what could not be held and how it could, or "".
    """
    with ExitStack() as undo:
        if util.find_spec("torch") is not None:
            import torch

            undo.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        if util.find_spec("threadpoolctl") is not None:
            import threadpoolctl

            undo.enter_context(threadpoolctl.threadpool_limits(threads))
            yield ""
            return
        free = usable_cores() > threads and not any(os.environ.get(name) == str(threads) for name in VARIABLES)
        yield "dense products of numpy and scipy; pip install threadpoolctl, or set OMP_NUM_THREADS" if free else ""
