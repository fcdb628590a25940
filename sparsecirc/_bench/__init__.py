"""Measuring a program beside its peers."""

from sparsecirc._bench._bench import ENGINES, BenchReport, EngineResult, Skipped, bench, engines_named
from sparsecirc._bench._host import Host
from sparsecirc._bench._job import CannotRun, Engine, Job, example_input

__all__ = [
    "ENGINES",
    "BenchReport",
    "CannotRun",
    "Engine",
    "EngineResult",
    "Host",
    "Job",
    "Skipped",
    "bench",
    "engines_named",
    "example_input",
]
