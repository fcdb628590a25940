"""The main job on real data, and the built-in ``demo:`` networks that every command accepts."""

from sparsecirc.errors import missing_extra

try:
    from sparsecirc.demo._models import NAMES, Built, build
    from sparsecirc.demo._report import DemoReport
    from sparsecirc.demo._run import run_demo
    from sparsecirc.demo._trained import TRAINED, load_trained
except ImportError as error:
    if error.name in ("torch", "snntorch"):
        raise missing_extra(error.name, "torch", "the demo") from error
    raise

__all__ = ["NAMES", "TRAINED", "Built", "DemoReport", "build", "load_trained", "run_demo"]
