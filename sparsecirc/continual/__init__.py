"""Continual learning of spiking networks: scenarios, methods against forgetting, and what they are judged by.

`HLOP` (Hebbian orthogonal projection, Xiao et al., ICLR 2024) learns the directions that a layer's inputs use, online,
and changes weights only orthogonally to those of earlier tasks. `docs/continual.md` shows it beside its relatives.
"""

from sparsecirc._mean import Mean
from sparsecirc.continual._bases import GPM, OWM, SGP, AdamNSCL
from sparsecirc.continual._coding import Coding, LatencyCoding, RateCoding, direct, sequence
from sparsecirc.continual._connect import FeedbackAlignment, exact, sign_symmetric
from sparsecirc.continual._hlop import AUTOMATIC, HLOP, PERMUTED_MNIST, Ranks
from sparsecirc.continual._learning import BPTT, DSR, OTTT
from sparsecirc.continual._ledger import MaskLedger
from sparsecirc.continual._method import Batch, Combined, Finetune, Joint, Method
from sparsecirc.continual._metrics import Activity, Result, activity, overlap, summary
from sparsecirc.continual._network import Block, SpikingNet, lif, mlp, rlif
from sparsecirc.continual._projecting import CapacityWarning, Mode
from sparsecirc.continual._regularise import EWC, SI
from sparsecirc.continual._rehearsal import DERpp, Replay
from sparsecirc.continual._restricted import RestrictedProjection
from sparsecirc.continual._run import Learner, MakeOptimizer, Setting, Step, adam, run, sgd
from sparsecirc.continual._scenario import (
    Increment,
    Scenario,
    Task,
    flat,
    from_tasks,
    permuted,
    rotated,
    sequences,
    split,
)
from sparsecirc.continual._sites import Site, Tap, WeightedRate, each_step, firing_rate, sites
from sparsecirc.continual._subspace import ORTHONORMAL, PUBLISHED, Oja, SpikingLateral, Subspace, linear_lateral

__all__ = [
    "AUTOMATIC",
    "BPTT",
    "DSR",
    "EWC",
    "GPM",
    "HLOP",
    "ORTHONORMAL",
    "OTTT",
    "OWM",
    "PERMUTED_MNIST",
    "PUBLISHED",
    "SGP",
    "SI",
    "Activity",
    "AdamNSCL",
    "Batch",
    "Block",
    "CapacityWarning",
    "Coding",
    "Combined",
    "DERpp",
    "FeedbackAlignment",
    "Finetune",
    "Increment",
    "Joint",
    "LatencyCoding",
    "Learner",
    "MakeOptimizer",
    "MaskLedger",
    "Mean",
    "Method",
    "Mode",
    "Oja",
    "Ranks",
    "RateCoding",
    "Replay",
    "RestrictedProjection",
    "Result",
    "Scenario",
    "Setting",
    "Site",
    "SpikingLateral",
    "SpikingNet",
    "Step",
    "Subspace",
    "Tap",
    "Task",
    "WeightedRate",
    "activity",
    "adam",
    "direct",
    "each_step",
    "exact",
    "firing_rate",
    "flat",
    "from_tasks",
    "lif",
    "linear_lateral",
    "mlp",
    "overlap",
    "permuted",
    "rlif",
    "rotated",
    "run",
    "sequence",
    "sequences",
    "sgd",
    "sign_symmetric",
    "sites",
    "split",
    "summary",
]
