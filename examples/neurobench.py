"""Three trained spiking networks of NeuroBench, pruned to 80 % by magnitude, compiled, and compared spike by spike.

    python examples/neurobench.py            # 6 s
    python examples/neurobench.py --quick    # fewer samples, shorter measurements

The checkpoints lie in $SPARSECIRC_DATA/models/neurobench (see examples/neurobench_models.py). Inputs are random numbers
of the size and range of each task, since the recordings are large: this shows equality and speed, not accuracy.

On one core of an AMD EPYC with AVX-512, 64 samples: 0 of 1.4 million spikes differ. Batch 1, beside the same network as
snntorch's loop: 1.4 against 149 us a step (EEG), 12 against 163 (activity, whose convolutions run dense in numpy), 8
against 147 (reaching).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import model_folder, must, run, table
from neurobench_models import example_inputs, load_activity, load_motor_imagery, load_reaching

import sparsecirc as sc
from sparsecirc._bench import ENGINES

FILES = ("best_model.pt", "WISDM_snnTorch.ckpt", "indy_20160622_01_model_state_dict.pth")
HEAD = ("network", "density", "bytes dense", "packed", "spikes", "unexplained", "ties", "us/step", "snntorch", "faster")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, help="folder of the checkpoints (default in $SPARSECIRC_DATA)")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--samples", type=int, help="inputs that are compared (default 64; quick 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer samples, shorter measurements")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    folder = args.models or model_folder("neurobench", FILES)
    inputs = example_inputs(args.samples or (8 if args.quick else 64), args.seed)
    reaching = load_reaching(folder)
    inputs["Reaching"] = reaching.prepare(inputs["Reaching"]).detach()

    rows = []
    for model in (load_motor_imagery(folder), load_activity(folder), reaching):
        name = type(model).__name__
        x = inputs[name].numpy()
        graph = sc.prune(sc.to_graph(model, example=x[:, :1] if name == "Reaching" else x[:1]), args.sparsity)
        program = sc.compile(graph)
        report = sc.verify(program, x, reference=graph).check()
        must(report.spike_mismatches == 0, f"{name}: {report.spike_mismatches} spikes differ without a tie")
        must(report.spikes > 0, f"{name}: no neuron spikes, so nothing was compared")
        measured = sc.bench(
            program,
            x,
            batch=1,
            engines=[ENGINES["snntorch"]],
            min_seconds=0.1 if args.quick else 0.5,
            rounds=9,
        )
        loop = next((e for e in measured.engines if e.name == "snntorch"), None)
        must(loop is not None, f"{name}: {'; '.join(s.reason for s in measured.skipped)}")
        assert loop is not None
        ours = measured.us_per_step["sparsecirc"]
        rows.append(
            (name, f"{graph.density:.3f}", f"{program.dense_bytes}", f"{program.packed_bytes}", f"{report.spikes}",
             f"{report.spike_mismatches}", f"{len(report.ties)}", f"{ours:.1f}", f"{loop.us_per_step:.1f}",
             f"{loop.speedup:.1f}x")
        )  # fmt: skip
    print(table(HEAD, rows))
    print(f"batch 1; {len(inputs['Activity'])} samples compared; {measured.host.line()}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
