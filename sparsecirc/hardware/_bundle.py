"""A network as one plain file of arrays, which the runners of other simulators read without this package.

``net.npz`` holds ``meta``, a JSON text, and for the k-th population and projection that it lists the arrays
``population<k>.<vector>``, ``population<k>.bias`` and ``projection<k>.pre``, ``.post``, ``.weight``: one entry per
connection, sorted by the presynaptic unit.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sparsecirc.hardware._network import Network

VERSION = 1


def bundle(
    net: Network,
    *,
    weights: Mapping[str, Any] | None = None,
    vectors: Mapping[str, Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """The contents of ``net.npz``.

    Args:
        net: the network.
        weights: by projection, what to write instead of its weights; integers.
        vectors: by population, what to write instead of its vectors and bias; integers.
        more: further entries of ``meta``.
    """
    from sparsecirc import __version__

    arrays: dict[str, Any] = {}
    populations: list[dict[str, Any]] = []
    for k, p in enumerate(net.populations):
        own = {**p.vectors, "bias": p.bias} if vectors is None else vectors.get(p.name, {})
        populations.append(
            {"name": p.name, "units": p.units, "kind": p.kind, "vectors": sorted(own.keys() - {"bias"})}
            | {
                "depth": net.depths[p.name],
                "reset": p.options.reset.value,
                "delay": p.options.delay,
                "adapted": p.options.adapted,
            }
        )
        arrays |= {f"population{k}.{name}": vector for name, vector in own.items()}
    for k, c in enumerate(net.projections):
        pre, post, weight = c.connections if weights is None else replace(c, weight=weights[c.name]).connections
        arrays |= {
            f"projection{k}.pre": pre.astype(np.int32),
            f"projection{k}.post": post.astype(np.int32),
            f"projection{k}.weight": weight,
        }
    meta = {
        "format": "sparsecirc network",
        "version": VERSION,
        "made_by": f"sparsecirc {__version__}",
        "dt": net.dt,
        "populations": populations,
        "projections": [
            {"name": c.name, "pre": c.pre, "post": c.post, "recurrent": c.recurrent, "delay": net.delay(c)}
            for c in net.projections
        ],
        "outputs": {name: list(value) for name, value in net.outputs.items()},
        **(more or {}),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, meta=np.array(json.dumps(meta)), **arrays)
    return buffer.getvalue()
