"""The callbacks inside the trainers that are released: Lightning's and Hugging Face's, beside a loop by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sparsecirc.errors import FileFormatError, UsageError  # noqa: E402
from sparsecirc.masks import Masks  # noqa: E402
from sparsecirc.rules import Cubic, UntilDrop  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the trainers warn of their own matters, each release of others


def needs(*packages: str) -> pytest.MarkDecorator:
    absent = [p for p in packages if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


lightning = needs("lightning")
hugging = needs("transformers", "accelerate")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.GRU(4, 12, batch_first=True)
        self.head = torch.nn.Linear(12, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


def samples(count: int = 40) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(7)
    return [{"x": torch.randn(5, 4, generator=generator), "labels": torch.tensor(k % 2)} for k in range(count)]


def batches(size: int = 4) -> list[tuple[Any, Any]]:
    found = samples()
    return [
        (torch.stack([s["x"] for s in part]), torch.stack([s["labels"] for s in part]))
        for part in (found[k : k + size] for k in range(0, len(found), size))
    ]


def made(seed: int = 0) -> tuple[Net, Cubic]:
    torch.manual_seed(seed)
    net = Net()
    return net, Cubic(net, 0.9, 0, 12, 3)


def loss_of(net: Net, x: Any, y: Any) -> Any:
    return torch.nn.functional.cross_entropy(net(x), y)


def by_hand(steps: int, accumulate: int = 1, size: int = 4) -> tuple[str, dict[str, Any]]:
    net, rule = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rule.masks.attach(optimizer)
    data = batches(size)
    for step in range(steps):
        optimizer.zero_grad()
        for k in range(accumulate):
            x, y = data[(step * accumulate + k) % len(data)]
            (loss_of(net, x, y) / accumulate).backward()
        optimizer.step()
        rule.step()
    return rule.masks.digest, net.state_dict()


def same(a: dict[str, Any], b: dict[str, Any], tolerance: float = 0.0) -> None:
    for key, value in a.items():
        torch.testing.assert_close(value, b[key], rtol=0, atol=tolerance, msg=key)


# Lightning


def module(net: Net) -> Any:
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, _index: int) -> Any:
            return loss_of(self.net, *batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Module()


def trainer(folder: Path, steps: int, *callbacks: Any, **more: Any) -> Any:
    from lightning.pytorch import Trainer

    return Trainer(
        max_steps=steps, accelerator="cpu", devices=1, callbacks=list(callbacks), default_root_dir=folder,
        logger=False, enable_progress_bar=False, enable_model_summary=False, **more,
    )  # fmt: skip


def loader(size: int = 4) -> Any:
    data = [(s["x"], s["labels"]) for s in samples()]
    return torch.utils.data.DataLoader(data, batch_size=size)


@lightning
@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_trains_as_a_loop_by_hand(tmp_path: Path, accumulate: int) -> None:
    from sparsecirc.integrations.lightning import PruneCallback

    net, rule = made()
    trainer(
        tmp_path, 15, PruneCallback(rule), enable_checkpointing=False, accumulate_grad_batches=accumulate
    ).fit(module(net), loader())  # fmt: skip
    digest, weights = by_hand(15, accumulate)
    assert rule.steps == 15
    assert rule.masks.digest == digest
    assert rule.masks.density == pytest.approx(0.1, abs=0.01)
    same(weights, net.state_dict(), 1e-6)
    rule.masks.check()
    rule.masks.attach(torch.optim.SGD(net.parameters(), lr=0.1))  # detached: another may follow


@lightning
def test_lightning_resumes_from_its_own_checkpoint(tmp_path: Path) -> None:
    from sparsecirc.integrations.lightning import PruneCallback

    # One batch holds everything: where in an epoch Lightning takes up the data is a matter of its own.
    net, rule = made()
    first = trainer(tmp_path, 7, PruneCallback(rule))
    first.fit(module(net), loader(40))
    first.save_checkpoint(tmp_path / "seven.ckpt", weights_only=False)
    other, its_rule = made(seed=5)
    trainer(tmp_path, 15, PruneCallback(its_rule)).fit(module(other), loader(40), ckpt_path=tmp_path / "seven.ckpt")
    digest, weights = by_hand(15, size=40)
    assert its_rule.steps == 15
    assert its_rule.masks.digest == digest
    same(weights, other.state_dict(), 1e-6)


@lightning
def test_lightning_finds_a_sparsity(tmp_path: Path) -> None:
    """A rule that evaluates and rewinds inside the trainer's loop."""
    from sparsecirc.integrations.lightning import PruneCallback

    torch.manual_seed(0)
    net = Net()
    good = iter([1.0, 1.0, 1.0, 0.0])
    rule = UntilDrop(net, lambda: next(good), tolerance=0.1, every=2, share=0.5)
    trainer(tmp_path, 10, PruneCallback(rule), enable_checkpointing=False).fit(module(net), loader())
    assert rule.done
    assert rule.sparsity == 0.5
    rule.masks.check()


@lightning
def test_lightning_refuses_an_optimizer_of_others(tmp_path: Path) -> None:
    from sparsecirc.integrations.lightning import PruneCallback

    _, rule = made()
    with pytest.raises(UsageError, match="owns none of the masked weights"):
        trainer(tmp_path, 2, PruneCallback(rule), enable_checkpointing=False).fit(module(made()[0]), loader())


# Hugging Face


class Scored(Net):
    """As the Trainer wants its models: named inputs in, a loss out."""

    def forward(self, x: Any, labels: Any = None) -> Any:
        scores = super().forward(x)
        loss = None if labels is None else torch.nn.functional.cross_entropy(scores, labels)
        return {"loss": loss, "logits": scores}


def scored(seed: int = 0) -> tuple[Scored, Cubic]:
    torch.manual_seed(seed)
    net = Scored()
    return net, Cubic(net, 0.9, 0, 12, 3)


def hugging_trainer(folder: Path, net: Net, steps: int, callback: Any, **more: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):  # type: ignore[misc, unused-ignore]
        def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    args = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        lr_scheduler_type="constant", max_grad_norm=0.0, disable_tqdm=True, logging_strategy="no",
        **{"save_strategy": "no", **more},
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return InOrder(model=net, args=args, train_dataset=samples(), optimizers=(optimizer, None), callbacks=[callback])


@hugging
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainer_trains_as_a_loop_by_hand(tmp_path: Path, accumulate: int) -> None:
    from sparsecirc.integrations.transformers import PruneCallback

    net, rule = scored()
    hugging_trainer(tmp_path, net, 15, PruneCallback(rule), gradient_accumulation_steps=accumulate).train()
    digest, weights = by_hand(15, accumulate)
    assert rule.steps == 15
    assert rule.masks.digest == digest
    same(weights, net.state_dict(), 1e-5)
    rule.masks.check()


@hugging
@pytest.mark.parametrize("named", [True, False], ids=["folder named", "newest folder"])
def test_the_trainer_resumes_from_its_own_checkpoint(tmp_path: Path, named: bool) -> None:
    from sparsecirc.integrations.transformers import PruneCallback

    net, rule = scored()
    hugging_trainer(tmp_path, net, 7, PruneCallback(rule), save_strategy="steps", save_steps=7).train()
    other, its_rule = scored(seed=5)
    going_on = hugging_trainer(tmp_path, other, 15, PruneCallback(its_rule), save_strategy="steps", save_steps=7)
    going_on.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7") if named else True)
    digest, weights = by_hand(15)
    assert its_rule.steps == 15
    assert its_rule.masks.digest == digest
    same(weights, other.state_dict(), 1e-5)


@hugging
def test_the_trainer_does_not_resume_without_the_rule(tmp_path: Path) -> None:
    from sparsecirc.integrations.transformers import STATE_FILE, PruneCallback

    net, rule = scored()
    hugging_trainer(tmp_path, net, 3, PruneCallback(rule), save_strategy="steps", save_steps=3).train()
    (tmp_path / "checkpoint-3" / STATE_FILE).unlink()
    other, its_rule = scored(seed=5)
    with pytest.raises(FileFormatError, match="written with PruneCallback"):
        hugging_trainer(tmp_path, other, 6, PruneCallback(its_rule)).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )


@hugging
def test_masks_of_their_own_stay_as_they_are_under_the_trainer(tmp_path: Path) -> None:
    """Fine-tuning a pruned model: a rule that has nothing left to do."""
    from sparsecirc.integrations.transformers import PruneCallback

    net, _ = scored()
    masks = Masks.prune(net, 0.8)
    digest = masks.digest
    rule = Cubic(masks, 0.8, 0, 1, initial=0.8)
    hugging_trainer(tmp_path, net, 6, PruneCallback(rule)).train()
    assert masks.digest == digest
    masks.check()
