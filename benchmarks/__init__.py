"""The cost of sparse recurrent networks beside every other engine that is installed: `python -m benchmarks --help`."""

from __future__ import annotations

import os

# Every engine gets one thread. numpy reads these when it is first imported, so they are set before anything else.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
