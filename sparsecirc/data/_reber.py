"""Strings of the Reber grammar, valid and invalid: drawn, not downloaded."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from sparsecirc.data._dataset import Dataset
from sparsecirc.errors import UsageError

Automaton = Mapping[int, tuple[tuple[str, int], ...]]

GRAMMAR: Automaton = {
    0: (("B", 1),),
    1: (("T", 2), ("P", 3)),
    2: (("S", 2), ("X", 4)),
    3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)),
    5: (("P", 4), ("V", 6)),
    6: (("E", 7),),
}
"""state -> (letter, next state); 7 accepts."""

FOREIGN: Automaton = {
    state: tuple((chr(ord("A") + (ord(letter) - ord("A") + 7) % 26), to) for letter, to in moves)
    for state, moves in GRAMMAR.items()
}
"""The same moves over letters of its own (each seven places on), none of which opens a valid string."""

ACCEPT = 7
LENGTHS = (11, 53)
SWAPPED = 0.44
"""Share of the invalid strings whose first branch is followed by the body of the other (about 5,500 of 12,500)."""


def accepts(text: str) -> bool:
    """Whether the Reber grammar derives ``text``."""
    state = 0
    for letter in text:
        state = dict(GRAMMAR.get(state, ())).get(letter, -1)
    return state == ACCEPT


def reber(train: int = 18750, test: int = 6250, *, seed: int = 0) -> Dataset:
    """Reber strings, half of them valid, all different, as in Darji 2021 (arXiv:2407.20601).

    Valid strings are random walks B ... E of the automaton with 11 to 53 letters. Of the invalid ones 44 % take a first
    branch (BT or BP) and then the body of the other; the rest walk the same automaton over other letters. That valid
    and invalid strings are all different, and the letters of the second kind, are our reading: the thesis does not say.

    Args:
        train: training strings.
        test: test strings.
        seed: of the walks and of the order.

    Returns:
        ``x`` holds ASCII codes, float32 (N, 53, 1), zeros after each string; classes: 0 invalid, 1 valid.

    Raises:
        UsageError: a negative number of strings, or none at all.
    """
    if train < 0 or test < 0 or train + test == 0:
        raise UsageError(f"reber with train={train}, test={test}: expected at least one string and no negative number")
    rng = random.Random(seed)
    total = train + test
    valid = total // 2
    swapped = round(SWAPPED * (total - valid))
    seen: set[str] = set()
    texts = [_new(rng, GRAMMAR, "", 0, seen) for _ in range(valid)]
    for k in range(swapped):
        branch, other = (("BT", 3), ("BP", 2))[k % 2]
        texts.append(_new(rng, GRAMMAR, branch, other, seen))
    texts += [_new(rng, FOREIGN, "", 0, seen) for _ in range(total - valid - swapped)]
    x = np.zeros((total, LENGTHS[1], 1), np.float32)
    for row, text in zip(x, texts, strict=True):
        row[: len(text), 0] = np.frombuffer(text.encode("ascii"), np.uint8)
    y = (np.arange(total) < valid).astype(np.int64)
    lengths = np.array([len(t) for t in texts], np.int64)
    order = np.random.default_rng(seed).permutation(total)
    a, b = order[:train], order[train:]
    note = f"drawn with seed {seed}; letters as ASCII codes"
    return Dataset("Reber grammar", x[a], y[a], x[b], y[b], lengths[a], lengths[b], note)


def _new(rng: random.Random, moves: Automaton, text: str, state: int, seen: set[str]) -> str:
    """A walk from ``state`` on that was not seen before, of a length in `LENGTHS`."""
    while True:
        walk, at = [text], state
        while at != ACCEPT:
            letter, at = moves[at][rng.getrandbits(1) if len(moves[at]) == 2 else 0]
            walk.append(letter)
        made = "".join(walk)
        if LENGTHS[0] <= len(made) <= LENGTHS[1] and made not in seen:
            seen.add(made)
            return made
