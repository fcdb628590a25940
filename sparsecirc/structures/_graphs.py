"""Random graphs by name, each from a seed of its own."""

from __future__ import annotations

import networkx as nx

from sparsecirc.errors import UsageError

TRIES = 1000
"""Draws after which a graph that must be connected is given up."""


def barabasi_albert(n: int, m: int | None = None, *, seed: int = 0) -> nx.Graph:
    """Preferential attachment (Barabási & Albert 1999): each new node links to ``m`` old ones; ``n // 10`` by default.

    Raises:
        UsageError: not 1 <= m < n.
    """
    m = max(1, n // 10) if m is None else m
    if not 1 <= m < n:
        raise UsageError(f"barabasi_albert with n={n}, m={m}: expected 1 <= m < n")
    return nx.barabasi_albert_graph(n, m, seed=seed)


def watts_strogatz(n: int, k: int | None = None, p: float = 1.0, *, seed: int = 0) -> nx.Graph:
    """A ring of ``k`` nearest neighbours, each link rewired with probability ``p``; connected (Watts & Strogatz 1998).

    Args:
        n: nodes.
        k: neighbours on the ring, ``n // 5`` by default; an odd number counts as the even one below it.
        p: probability of rewiring.
        seed: of the draw.

    Raises:
        UsageError: not 2 <= k < n, ``p`` outside [0, 1], or no connected graph in 1000 draws.
    """
    k = max(2, n // 5) if k is None else k
    if not 2 <= k < n:
        raise UsageError(f"watts_strogatz with n={n}, k={k}: expected 2 <= k < n")
    if not 0 <= p <= 1:
        raise UsageError(f"watts_strogatz with p={p}: expected a probability")
    try:
        return nx.connected_watts_strogatz_graph(n, k, p, tries=TRIES, seed=seed)
    except nx.NetworkXError as error:
        raise UsageError(
            f"watts_strogatz with n={n}, k={k}, p={p}: none of {TRIES} draws is connected; raise k"
        ) from error


def erdos_renyi(n: int, p: float, *, seed: int = 0) -> nx.Graph:
    """Each of the n (n - 1) / 2 links with probability ``p`` (Erdős & Rényi 1959); it need not be connected.

    Raises:
        UsageError: ``n`` below 1, or ``p`` outside [0, 1].
    """
    if n < 1 or not 0 <= p <= 1:
        raise UsageError(f"erdos_renyi with n={n}, p={p}: expected n >= 1 and a probability")
    return nx.gnp_random_graph(n, p, seed=seed)
