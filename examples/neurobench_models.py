"""Three trained spiking networks of NeuroBench (Yik et al. 2025), rebuilt from their checkpoints.

The checkpoints are state dicts of snntorch networks in NeuroBench's repository under ``examples/*/model_data``. Shapes
and thresholds are read off them; what a state dict does not hold (padding, strides, the loop over time) follows from
the sizes and from NeuroBench's description of each task.

    python examples/neurobench_models.py DIRECTORY      # where the three files lie
"""

from __future__ import annotations

import sys
from pathlib import Path

import snntorch as snn
import torch
from torch import nn


class MotorImagery(nn.Module):
    """Left or right hand from 62 EEG channels: (B, T, 62) to spikes (B, T, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(62, 256), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(256, 128), snn.Leaky(beta=0.9)
        self.fc3, self.lif3 = nn.Linear(128, 2), snn.Leaky(beta=0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Spikes of the two output neurons at every step."""
        mem1, mem2, mem3 = self.lif1.reset_mem(), self.lif2.reset_mem(), self.lif3.reset_mem()
        spikes = []
        for t in range(x.shape[1]):
            z, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            z, mem2 = self.lif2(self.fc2(z), mem2)
            z, mem3 = self.lif3(self.fc3(z), mem3)
            spikes.append(z)
        return torch.stack(spikes, dim=1)


class Activity(nn.Module):
    """One of 7 activities from a smart watch (WISDM): (B, T, 6, 1) to spikes and membranes (B, T, 7).

    NeuroBench's network takes (B, T, 6) and adds the axis of length one that its convolution pads from both sides; here
    it is part of the input.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.max1 = nn.Conv1d(6, 200, kernel_size=2, padding=4), nn.MaxPool1d(2)
        self.leaky1 = snn.Leaky(beta=0.4, threshold=0.002, init_hidden=True)
        self.conv2, self.max2 = nn.Conv1d(200, 256, kernel_size=1), nn.MaxPool1d(2)
        self.leaky2 = snn.Leaky(beta=0.3, threshold=0.001, init_hidden=True)
        self.linear = nn.Linear(512, 7)
        self.leaky3 = snn.Leaky(beta=0.5, threshold=0.001, init_hidden=True, output=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes and membranes of the 7 output neurons at every step."""
        for neurons in (self.leaky1, self.leaky2, self.leaky3):
            neurons.reset_mem()
        spikes, membranes = [], []
        for x_t in x.unbind(dim=1):
            z = self.leaky1(self.max1(self.conv1(x_t)))
            z = self.leaky2(self.max2(self.conv2(z)))
            spk, mem = self.leaky3(self.linear(z.flatten(1)))
            spikes.append(spk)
            membranes.append(mem)
        return torch.stack(spikes, dim=1), torch.stack(membranes, dim=1)


class Reaching(nn.Module):
    """Velocity of a monkey's hand from 96 electrodes: windows (7, B, 96), prepared, to (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_layer = nn.LayerNorm([7, 96])
        self.fc1, self.lif1 = nn.Linear(96, 32), snn.Leaky(beta=0.5, init_hidden=True)
        self.fc2, self.lif2 = nn.Linear(32, 48), snn.Leaky(beta=0.5, init_hidden=True)
        self.fc3, self.lif3 = nn.Linear(48, 2), snn.Leaky(beta=0.5, init_hidden=True, reset_mechanism="none")
        self.v_x, self.v_y = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def prepare(self, counts: torch.Tensor) -> torch.Tensor:
        """Spike counts (B, 7, 96) of the last 200 ms in 7 bins, normalised over the window, as (7, B, 96)."""
        return torch.transpose(self.norm_layer(counts), 0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last membrane of the output neurons, scaled to velocities."""
        for neurons in (self.lif1, self.lif2, self.lif3):
            neurons.reset_mem()
        for x_t in x:
            self.lif3(self.fc3(self.lif2(self.fc2(self.lif1(self.fc1(x_t))))))
        velocity: torch.Tensor = torch.cat((self.v_x, self.v_y)) * self.lif3.mem
        return velocity


def load_motor_imagery(directory: Path) -> MotorImagery:
    """The EEG network with its trained weights."""
    model = MotorImagery()
    model.load_state_dict(torch.load(directory / "best_model.pt", weights_only=True, map_location="cpu"))
    return model.eval()


def load_activity(directory: Path) -> Activity:
    """The WISDM network with its trained weights; its file is a checkpoint of a training framework."""
    file = torch.load(directory / "WISDM_snnTorch.ckpt", weights_only=True, map_location="cpu")
    model = Activity()
    model.load_state_dict({k.removeprefix("model."): v for k, v in file["state_dict"].items()})
    return model.eval()


def load_reaching(directory: Path) -> Reaching:
    """The reaching network with its trained weights."""
    name = "indy_20160622_01_model_state_dict.pth"
    model = Reaching()
    model.load_state_dict(torch.load(directory / name, weights_only=True, map_location="cpu"))
    return model.eval()


def example_inputs(batch: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs of the size and range of each task, by the model's class name."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((batch, 7, 96), 0.6), generator=generator)
    return {
        "MotorImagery": torch.randn(batch, 50, 62, generator=generator),
        "Activity": torch.randn(batch, 40, 6, 1, generator=generator),
        "Reaching": counts,
    }


def main(directory: Path) -> None:
    """Convert the three networks and print what became of them."""
    from sparsecirc.frontends import to_graph

    inputs = example_inputs()
    reaching = load_reaching(directory)
    inputs["Reaching"] = reaching.prepare(inputs["Reaching"]).detach()
    for model in (load_motor_imagery(directory), load_activity(directory), reaching):
        graph = to_graph(model, example=inputs[type(model).__name__])
        layers = ", ".join(f"{n.name} ({n.kind})" for n in graph.nodes)
        print(f"{type(model).__name__}: {layers}; largest difference {graph.meta['verified']['max_abs_diff']:.2g}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/neurobench_models.py DIRECTORY")
    main(Path(sys.argv[1]))
