"""Methods inside Avalanche: the same weights as in our own runs, with read-outs per task, saved and restored."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch", reason="the package 'torch' is not installed")

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from test_methods import METHODS, RANKS  # noqa: E402
from torch import nn  # noqa: E402
from toy import clashing, net, toy  # noqa: E402

from sparsecirc import continual as cl  # noqa: E402
from sparsecirc.errors import UsageError  # noqa: E402

try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    pass
except RuntimeError:
    # The build for CUDA, which is the one on the package index, beside a torch without it: its operators do not load,
    # and its import fails where it describes two of them. Nothing here uses them.
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[module]

pytest.importorskip("avalanche", reason="the package 'avalanche-lib' is not installed: make test-emulators")

from avalanche.benchmarks import tensors_benchmark  # noqa: E402
from avalanche.training.plugins import EvaluationPlugin, SupervisedPlugin  # noqa: E402
from avalanche.training.supervised import Naive  # noqa: E402

from sparsecirc.integrations.avalanche import ContinualPlugin, MultiHead  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

EPOCHS, RATE = 2, 0.3


class SeededLedger(cl.MaskLedger):
    """Draws new weights from a seed; data loaders draw from the same generator as it."""

    def before_task(self, task: int, steps: int = 0) -> None:
        torch.manual_seed(task)
        super().before_task(task, steps)


MORE: dict[str, Callable[[], cl.Method]] = {
    "finetune": cl.Finetune,
    "hlop_grad": lambda: cl.HLOP(RANKS, mode=cl.Mode.GRAD),
    "hlop_trace": lambda: cl.HLOP(RANKS, mode=cl.Mode.TRACE),
    "hlop_published": lambda: cl.HLOP(RANKS, rule=cl.PUBLISHED),
    "ledger": SeededLedger,
    "ewc+replay": lambda: cl.Combined(cl.EWC(10.0, samples=50), cl.Replay()),
}
TRIED = {n: m for n, m in METHODS.items() if n != "joint"} | MORE


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our runs take the samples in the order of the data, as Avalanche does with ``shuffle=False``."""
    monkeypatch.setattr(cl.Learner, "_order", lambda self, epoch, count: torch.arange(count))


def benchmark(scenario: cl.Scenario) -> Any:
    """The scenario as Avalanche takes it."""
    everything = slice(None)
    return tensors_benchmark(
        train_tensors=[t.train(torch.arange(len(t.y_train))) for t in scenario.tasks],
        test_tensors=[t.test(everything) for t in scenario.tasks],
        task_labels=[t.head for t in scenario.tasks],
    )


def strategy(model: nn.Module, plugin: ContinualPlugin) -> Any:
    """Plain training."""
    return Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), RATE), criterion=nn.CrossEntropyLoss(),
        train_mb_size=64, train_epochs=EPOCHS, eval_mb_size=200, plugins=[plugin], evaluator=EvaluationPlugin(),
    )  # fmt: skip


def trained(model: nn.Module, method: cl.Method, scenario: cl.Scenario) -> nn.Module:
    """By Avalanche, over the whole stream."""
    naive = strategy(model, ContinualPlugin(method))
    for experience in benchmark(scenario).train_stream:
        naive.train(experience, shuffle=False)
    return model


def ours(model: nn.Module, method: cl.Method, scenario: cl.Scenario) -> cl.Result:
    """By our own runner."""
    return cl.run(model, scenario, method, cl.Setting(cl.sgd(RATE), epochs=EPOCHS, look=False))


def assert_same(a: nn.Module, b: nn.Module) -> None:
    """Every tensor, to rounding."""
    mine, theirs = a.state_dict(), b.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6, msg=name)


def with_heads() -> cl.Scenario:
    """The tasks of `toy` with a read-out each."""
    arrays = [(*t.train(torch.arange(len(t.y_train))), *t.test()) for t in toy().tasks]
    return cl.from_tasks(arrays, increment=cl.Increment.TASK)


@pytest.mark.parametrize("name", TRIED)
def test_the_weights_of_our_own_runs(name: str) -> None:
    scenario, make = toy(), TRIED[name]
    one, other = net(scenario), net(scenario)
    ours(one, make(), scenario)
    assert_same(trained(other, make(), scenario), one)


@pytest.mark.parametrize("name", ["hlop", "hlop+replay", "ewc", "gpm", "derpp", "ledger"])
def test_a_read_out_for_each_task(name: str) -> None:
    scenario, make = with_heads(), TRIED[name]
    one, other = net(scenario), net(scenario)
    ours(one, make(), scenario)
    trained(MultiHead(other), make(), scenario)
    assert_same(other, one)


@pytest.mark.parametrize("name", TRIED)
def test_saved_and_restored_between_experiences(name: str) -> None:
    scenario, make = toy(), TRIED[name]
    whole = trained(net(scenario), make(), scenario)
    stream = benchmark(scenario).train_stream
    first, plugin = net(scenario), ContinualPlugin(make())
    naive = strategy(first, plugin)
    for experience in stream[:2]:
        naive.train(experience, shuffle=False)
    model, state = first.state_dict(), plugin.state_dict()

    second, again = net(scenario), ContinualPlugin(make())
    second.load_state_dict(model)
    again.load_state_dict(state)
    strategy(second, again).train(stream[2], shuffle=False)
    assert_same(second, whole)


class Right(SupervisedPlugin):  # type: ignore[misc, unused-ignore]
    """Notes which test samples are right."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def after_eval_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.found.append(strategy.mb_output.argmax(1) == strategy.mb_y)


def accuracies(naive: Any, stream: Any) -> list[float]:
    """Of each test part."""
    shares: list[float] = []
    for experience in stream:
        right = Right()
        naive.plugins.append(right)
        naive.eval(experience)
        naive.plugins.pop()
        shares.append(float(torch.cat(right.found).float().mean()))
    return shares


@pytest.mark.parametrize("name", ["hlop", "ledger"])
def test_tests_see_what_our_tests_see(name: str) -> None:
    scenario, make = toy(), TRIED[name]
    result = ours(net(scenario), make(), scenario)
    naive = strategy(net(scenario), ContinualPlugin(make()))
    data = benchmark(scenario)
    for experience in data.train_stream:
        naive.train(experience, shuffle=False)
    assert accuracies(naive, data.test_stream) == pytest.approx(result.accuracy[-1].tolist())


def test_other_models_are_watched_through_hooks() -> None:
    scenario = clashing()
    after_first = {}
    for name in ("finetune", "hlop"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(60, 80), nn.ReLU(), nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 4))
        naive = strategy(model, ContinualPlugin(TRIED[name]()))
        data = benchmark(scenario)
        for experience in data.train_stream:
            naive.train(experience, shuffle=False)
        after_first[name] = accuracies(naive, data.test_stream)[0]
    assert after_first["hlop"] > after_first["finetune"] + 0.05, after_first


def test_what_cannot_work_is_refused() -> None:
    scenario = toy()
    with pytest.raises(UsageError, match="JointTraining"):
        ContinualPlugin(cl.Joint())
    stream = benchmark(scenario).train_stream
    with pytest.raises(UsageError, match="in order"):
        strategy(net(scenario), ContinualPlugin(cl.HLOP())).train(stream[1])
    with pytest.raises(UsageError, match="OTTT"):
        strategy(net(scenario, learning=cl.OTTT()), ContinualPlugin(cl.HLOP())).train(stream[0])
