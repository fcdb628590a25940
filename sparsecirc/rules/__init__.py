"""Rules: what changes patterns over time, stepped by the user's own training loop."""

from sparsecirc.rules import drop, grow
from sparsecirc.rules._rewiring._dale import Dale
from sparsecirc.rules._rewiring._deep_r import DeepR
from sparsecirc.rules._rewiring._edges import Edges
from sparsecirc.rules._rewiring._known import G2G, SET, RigL
from sparsecirc.rules._rewiring._needs import Needs
from sparsecirc.rules._rewiring._online import OnlineHebb
from sparsecirc.rules._rewiring._rule import Exchanged, Rewire, cosine
from sparsecirc.rules._rewiring._signals import Signals
from sparsecirc.rules._rewiring._windows import Stdp, Traces, same_step
from sparsecirc.rules._rule import Rule
from sparsecirc.rules._schedule import Cubic, OneShot, Schedule
from sparsecirc.rules._search import Rewind, UntilDrop

__all__ = [
    "G2G",
    "SET",
    "Cubic",
    "Dale",
    "DeepR",
    "Edges",
    "Exchanged",
    "Needs",
    "OneShot",
    "OnlineHebb",
    "Rewind",
    "Rewire",
    "RigL",
    "Rule",
    "Schedule",
    "Signals",
    "Stdp",
    "Traces",
    "UntilDrop",
    "cosine",
    "drop",
    "grow",
    "same_step",
]
