"""The callbacks, driven through the hooks that the two trainers document, in their order.

The trainers here are written from the documentation; where the released package is installed, its base class is used.
The released trainers themselves are in test_trainers.py.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sparsecirc.errors import FileFormatError, MissingExtraError, UsageError  # noqa: E402
from sparsecirc.masks import Masks  # noqa: E402
from sparsecirc.rules import G2G, Cubic  # noqa: E402

BASES = {"lightning": ("lightning.pytorch", "Callback"), "transformers": ("transformers", "TrainerCallback")}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.GRU(4, 12)
        self.head = torch.nn.Linear(12, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][-1])


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Both modules; where a package is missing, its base class is an empty one."""
    for package, (module, base) in BASES.items():
        if importlib.util.find_spec(package) is None:
            made = ModuleType(module)
            setattr(made, base, type(base, (), {}))
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
            monkeypatch.setitem(sys.modules, module, made)
    names = {package: f"sparsecirc.integrations.{package}" for package in BASES}
    for name in names.values():
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield {package: importlib.import_module(name) for package, name in names.items()}
    for name in names.values():
        sys.modules.pop(name, None)


def setting(seed: int = 0) -> tuple[Net, Any, Cubic]:
    torch.manual_seed(seed)
    net = Net()
    return net, torch.optim.Adam(net.parameters(), lr=0.01), Cubic(net, 0.9, 0, 6, 2)


def step(net: Net, optimizer: Any, k: int) -> None:
    x = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(k))
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()


def by_hand(steps: int) -> tuple[str, Any]:
    net, optimizer, rule = setting()
    rule.masks.attach(optimizer)
    for k in range(steps):
        step(net, optimizer, k)
        rule.step()
    return rule.masks.digest, net.state_dict()


def same(a: Any, b: Any) -> None:
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


class LightningLoop:
    """What a Lightning Trainer calls, with ``accumulate`` batches per optimizer step."""

    def __init__(self, callback: Any, net: Net, optimizer: Any, accumulate: int = 1) -> None:
        self.callback, self.net, self.optimizers, self.accumulate = callback, net, [optimizer], accumulate
        self.global_step = 0

    def fit(self, until: int) -> None:
        self.callback.on_train_start(self, self.net)
        batch = 0
        while self.global_step < until:
            batch += 1
            if batch % self.accumulate == 0:
                step(self.net, self.optimizers[0], self.global_step)
                self.global_step += 1
            self.callback.on_train_batch_end(self, self.net, None, None, batch)
        self.callback.on_train_end(self, self.net)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_steps_with_the_optimizer(modules: dict[str, Any], accumulate: int) -> None:
    net, optimizer, rule = setting()
    callback = modules["lightning"].PruneCallback(rule)
    LightningLoop(callback, net, optimizer, accumulate).fit(8)
    digest, weights = by_hand(8)
    assert rule.steps == 8
    assert rule.masks.digest == digest
    same(weights, net.state_dict())
    step(net, optimizer, 99)  # detached: nothing holds the dead connections any more
    assert not torch.equal(net.rnn.weight_hh_l0 == 0, weights["rnn.weight_hh_l0"] == 0)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning_rewires_and_goes_on_from_a_checkpoint(modules: dict[str, Any], accumulate: int) -> None:
    def make(module: Any, optimizer: Any) -> G2G:
        return G2G(Masks.prune(module, 0.6), optimizer, every=2, fraction=0.2)

    def start(seed: int) -> tuple[Net, Any, Any]:
        torch.manual_seed(seed)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        return net, optimizer, modules["lightning"].RewireCallback(make)

    net, optimizer, callback = start(0)
    assert callback.state_dict() == {}
    loop = LightningLoop(callback, net, optimizer, accumulate)
    loop.fit(3)
    kept = copy.deepcopy((callback.state_dict(), net.state_dict(), optimizer.state_dict()))
    assert callback.rule.steps == 3
    other, its_optimizer, again = start(5)
    for part, state in zip((again, other, its_optimizer), kept, strict=True):
        part.load_state_dict(state)
    for one, its in ((loop, callback), (LightningLoop(again, other, its_optimizer, accumulate), again)):
        one.global_step = 3
        if its is callback:
            callback.load_state_dict(copy.deepcopy(kept[0]))
        one.fit(9)
    assert again.rule.digest == callback.rule.digest
    same(net.state_dict(), other.state_dict())
    assert not any(m._forward_hooks for m in net.modules())
    with pytest.raises(UsageError, match="no optimizer"):
        again.on_train_start(SimpleNamespace(optimizers=[]), other)


def test_lightning_goes_on_from_a_checkpoint(modules: dict[str, Any]) -> None:
    net, optimizer, rule = setting()
    callback = modules["lightning"].PruneCallback(rule)
    LightningLoop(callback, net, optimizer).fit(3)
    kept = callback.state_dict(), net.state_dict(), optimizer.state_dict()
    other, its_optimizer, its_rule = setting(seed=5)
    resumed = modules["lightning"].PruneCallback(its_rule)
    other.load_state_dict(kept[1])
    resumed.load_state_dict(kept[0])
    its_optimizer.load_state_dict(kept[2])
    loop = LightningLoop(resumed, other, its_optimizer)
    loop.global_step = 3
    loop.fit(8)
    digest, weights = by_hand(8)
    assert its_rule.masks.digest == digest
    same(weights, other.state_dict())


def test_an_error_in_training_detaches(modules: dict[str, Any]) -> None:
    net, optimizer, rule = setting()
    callback = modules["lightning"].PruneCallback(rule)
    trainer = LightningLoop(callback, net, optimizer)
    callback.on_train_start(trainer, net)
    callback.on_exception(trainer, net, RuntimeError("stop"))
    rule.masks.attach(optimizer)  # refused if the first attachment were still there


def test_wrong_optimizers_and_rules_without_masks(modules: dict[str, Any]) -> None:
    net, optimizer, rule = setting()
    stranger = torch.optim.SGD(Net().parameters(), lr=0.1)
    callback = modules["lightning"].PruneCallback(rule)
    with pytest.raises(UsageError, match="owns none of the masked weights"):
        LightningLoop(callback, net, stranger).fit(1)
    with pytest.raises(UsageError, match="no optimizer"):
        callback.on_train_start(SimpleNamespace(optimizers=[], global_step=0), net)
    callback.on_train_start(SimpleNamespace(optimizers=[stranger, optimizer], global_step=0), net)
    bare = SimpleNamespace(step=lambda: False, state_dict=dict, load_state_dict=dict.update)
    with pytest.raises(UsageError, match="pass the Masks"):
        modules["lightning"].PruneCallback(bare)
    assert modules["lightning"].PruneCallback(bare, Masks(net, {})) is not None


class Wrapped:
    """As accelerate wraps an optimizer."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer


def trainer_run(callback: Any, net: Net, optimizer: Any, folder: Path, first: int, until: int) -> None:
    """What the Trainer of Hugging Face calls; it saves at step 3."""
    args = SimpleNamespace(output_dir=str(folder), resume_from_checkpoint=None)
    state = SimpleNamespace(global_step=first, is_world_process_zero=True)
    control, shown = SimpleNamespace(), {"model": net, "optimizer": Wrapped(optimizer)}
    callback.on_train_begin(args, state, control, **shown)
    while state.global_step < until:
        step(net, optimizer, state.global_step)
        state.global_step += 1
        assert callback.on_step_end(args, state, control, **shown) is None  # leaves control as it is
        if state.global_step == 3:
            (folder / "checkpoint-3").mkdir()
            callback.on_save(args, state, control, **shown)
    callback.on_train_end(args, state, control, **shown)


def test_hugging_face_steps_saves_and_resumes(modules: dict[str, Any], tmp_path: Path) -> None:
    hugging = modules["transformers"]
    net, optimizer, rule = setting()
    trainer_run(hugging.PruneCallback(rule), net, optimizer, tmp_path, 0, 3)
    other, its_optimizer, its_rule = setting(seed=5)
    other.load_state_dict(net.state_dict())
    its_optimizer.load_state_dict(optimizer.state_dict())
    trainer_run(hugging.PruneCallback(its_rule), other, its_optimizer, tmp_path, 3, 8)
    digest, weights = by_hand(8)
    assert its_rule.masks.digest == digest
    same(weights, other.state_dict())
    with pytest.raises(FileFormatError, match=r"checkpoint-2.*written with PruneCallback"):
        trainer_run(hugging.PruneCallback(setting()[2]), *setting()[:2], tmp_path, 2, 8)


@pytest.mark.parametrize("package", BASES)
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, BASES[package][0], None)
    monkeypatch.delitem(sys.modules, f"sparsecirc.integrations.{package}", raising=False)
    with pytest.raises(MissingExtraError, match=rf"sparsecirc\[{package}\]"):
        importlib.import_module(f"sparsecirc.integrations.{package}")
