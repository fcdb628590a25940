"""What each chip can hold: a record per chip, with the source of every number.

A limit that nobody published is there with the value ``None``: `fits` then says that it is unknown, and
`Chip.with_limits` sets it. Numbers marked "secondary" were read about, not in the maker's own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sparsecirc.cells import Reset
from sparsecirc.errors import UsageError
from sparsecirc.hardware._integer import IntegerNetwork
from sparsecirc.hardware._loihi import to_loihi
from sparsecirc.hardware._network import Network
from sparsecirc.hardware._xylo import to_xylo

LIMITS: Mapping[str, str] = {
    "cores": "cores on a chip",
    "neurons_per_core": "neurons in a core",
    "in_axons_per_core": "units outside or inside a core that send spikes into it",
    "out_axons_per_core": "pairs of a unit in a core and a core that it sends spikes to",
    "synapse_bits_per_core": "bits of synapse memory in a core",
    "memory_per_core": "bytes of memory in a core (not checked: what a neuron takes is up to the program there)",
    "inputs": "input channels",
    "hidden": "neurons before the last layer",
    "outputs": "neurons of the last layer",
    "neurons": "neurons in all",
    "synapses": "connections in all",
    "fan_in": "connections that reach a neuron",
    "fan_out": "connections from a hidden neuron to hidden neurons",
    "fan_out_average": "the same, over all hidden neurons on average",
    "weight_bits": "bits of a weight, sign included",
    "state_bits": "bits of a membrane or synaptic state",
    "decay_bits": "bits of a decay; of a shift where decays are shifts",
    "threshold_bits": "bits of a threshold",
    "bias_bits": "bits of a bias",
    "spikes_per_step": "spikes of one input in a step",
}
"""Every limit that `fits` knows, in words."""


@dataclass(frozen=True)
class Limit:
    """One number of a chip.

    Attributes:
        value: the number, ``None`` where it is not public.
        source: where it is from.
    """

    value: int | None
    source: str


@dataclass(frozen=True)
class Chip:
    """What a chip can hold.

    Attributes:
        name: as the command line spells it.
        title: its name.
        limits: by name, see `LIMITS`.
        cells: names of the cells that it has, or a part of them by another choice of parameters.
        resets: what its spikes may do to a membrane.
        obstacles: structures that it cannot run, with the reason: ``"recurrent"``, ``"dense"``.
        axon_bits: ``(connections, units)`` -> bits of synapse memory for one source with so many connections into a
            core of so many units, where that is known.
        store: makes the nearest network that it can store, in its integers, where its arithmetic is known.
    """

    name: str
    title: str
    limits: Mapping[str, Limit]
    cells: tuple[str, ...] = ("lif", "synaptic", "li")
    resets: tuple[Reset, ...] = (Reset.ZERO,)
    obstacles: Mapping[str, str] = field(default_factory=dict)
    axon_bits: Callable[[int, int], int] | None = None
    store: Callable[[Network], IntegerNetwork] | None = None

    def limit(self, name: str) -> int | None:
        """The value of a limit; ``None`` where the chip has no such limit, or it is unknown."""
        found = self.limits.get(name)
        return None if found is None else found.value

    @property
    def unknown(self) -> tuple[str, ...]:
        """Limits that the chip has, of unknown value."""
        return tuple(name for name, limit in self.limits.items() if limit.value is None)

    def with_limits(self, **values: int) -> Chip:
        """The same chip with some limits set by the user.

        Raises:
            UsageError: there is no such limit, or a value is not positive.
        """
        for name, value in values.items():
            if name not in LIMITS:
                raise UsageError(f"limit '{name}' is unknown: expected one of {', '.join(LIMITS)}")
            if value < 1:
                raise UsageError(f"limit '{name}' is {value}: expected at least 1")
        own = {name: Limit(int(value), "set by the user") for name, value in values.items()}
        return replace(self, limits={**self.limits, **own})


def loihi1_axon_bits(connections: int, units: int) -> int:
    """Bits that one input axon of a Loihi 1 core takes, with 8-bit weights and no delays.

    Connections lie in blocks of 64, each with its index; a block has 10 bits of its own and is rounded up to 64 bits
    (``SynapseConfig.bits_per_axon`` of nengo-loihi 1.1.0).
    """
    index = next((b for b in (6, 7, 8, 9, 10, 11, 12) if units <= 2**b), 12)
    total = 0
    for start in range(0, connections, 64):
        total += -(-(min(connections - start, 64) * (8 + index) + 10) // 64) * 64
    return total


_NENGO = "nengo-loihi 1.1.0, block.py and builder/discretize.py"
_ALLOCATOR = "nengo-loihi 1.1.0, hardware/allocators.py"
_LAVA = "lava-nc 0.10.0, proc/lif/models.py"
_SECONDARY = "secondary"
_ROCKPOOL = "rockpool 3.1.0, devices/xylo"
_NOTED = "SynSense's documentation, noted by this project in November 2026"
_SINABS = "sinabs 3.1.3, backend/dynapcnn"
_DATASHEET = "SpiNNaker2 datasheet 0.03, August 2021"
_NOT_PUBLIC = "not public"

LOIHI1 = Chip(
    "loihi1",
    "Intel Loihi",
    {
        "cores": Limit(128, _ALLOCATOR),
        "neurons_per_core": Limit(1024, _NENGO),
        "in_axons_per_core": Limit(4096, _NENGO),
        "out_axons_per_core": Limit(4096, _NENGO),
        "synapse_bits_per_core": Limit(16384 * 64, _NENGO),
        "weight_bits": Limit(8, _NENGO),
        "state_bits": Limit(23, _NENGO),
        "decay_bits": Limit(12, _NENGO),
        "threshold_bits": Limit(17, _NENGO),
        "bias_bits": Limit(13, _NENGO),
    },
    axon_bits=loihi1_axon_bits,
    store=to_loihi,
)
LOIHI2 = Chip(
    "loihi2",
    "Intel Loihi 2",
    {
        "cores": Limit(128, _SECONDARY),
        "neurons_per_core": Limit(None, _NOT_PUBLIC),
        "synapse_bits_per_core": Limit(None, _NOT_PUBLIC),
        "weight_bits": Limit(8, "lava-nc 0.10.0, proc/sparse/models.py"),
        "state_bits": Limit(24, _LAVA),
        "decay_bits": Limit(12, _LAVA),
        "threshold_bits": Limit(17, _LAVA),
        "bias_bits": Limit(13, _LAVA),
    },
    store=to_loihi,
)
XYLO_AUDIO2 = Chip(
    "xylo-audio2",
    "SynSense Xylo Audio 2",
    {
        "inputs": Limit(16, _ROCKPOOL),
        "hidden": Limit(1000, _ROCKPOOL),
        "outputs": Limit(8, _ROCKPOOL),
        "fan_out": Limit(64, _NOTED),
        "fan_out_average": Limit(32, _NOTED),
        "weight_bits": Limit(8, _ROCKPOOL),
        "state_bits": Limit(16, _ROCKPOOL),
        "decay_bits": Limit(4, _ROCKPOOL),
        "threshold_bits": Limit(16, _ROCKPOOL),
        "bias_bits": Limit(16, _ROCKPOOL),
        "spikes_per_step": Limit(15, _ROCKPOOL),
    },
    cells=("synaptic",),
    resets=(Reset.SUBTRACT,),
    store=to_xylo,
)
XYLO_AUDIO3 = replace(
    XYLO_AUDIO2,
    name="xylo-audio3",
    title="SynSense Xylo Audio 3",
    limits={
        **{k: v for k, v in XYLO_AUDIO2.limits.items() if k != "fan_out_average"},
        "hidden": Limit(992, _ROCKPOOL),
        "outputs": Limit(32, _ROCKPOOL),
        "fan_out": Limit(1024, _NOTED),
    },
)
XYLO_IMU = replace(
    XYLO_AUDIO3,
    name="xylo-imu",
    title="SynSense Xylo IMU",
    limits={
        **XYLO_AUDIO3.limits,
        "hidden": Limit(496, _ROCKPOOL),
        "outputs": Limit(16, _ROCKPOOL),
        "fan_out": Limit(512, _NOTED),
    },
)
SPECK2 = Chip(
    "speck2",
    "SynSense Speck 2e and 2f",
    {
        "cores": Limit(9, _SINABS),
        "weight_bits": Limit(8, _SINABS),
        "state_bits": Limit(16, _SINABS),
    },
    cells=("lif",),
    resets=(Reset.SUBTRACT,),
    obstacles={
        "recurrent": "its event-driven cores can deadlock on a connection back to an earlier layer",
        "dense": "its cores run convolutions: write the layer as one",
    },
)
BRAINSCALES2 = Chip(
    "brainscales2",
    "BrainScaleS-2",
    {
        "neurons": Limit(512, _SECONDARY),
        "synapses": Limit(131072, _SECONDARY),
        "fan_in": Limit(256, "synapses by neurons, both secondary"),
        "weight_bits": Limit(7, "6 bits and a sign by row, secondary"),
    },
)
SPINNAKER2 = Chip(
    "spinnaker2",
    "SpiNNaker 2",
    {
        "cores": Limit(152, _DATASHEET),
        "memory_per_core": Limit(128 * 1024, _DATASHEET),
        "neurons_per_core": Limit(None, _NOT_PUBLIC),
    },
    resets=tuple(Reset),
    cells=("lif", "synaptic", "alif", "li"),
)
CHIPS: Mapping[str, Chip] = {
    c.name: c for c in (LOIHI1, LOIHI2, XYLO_AUDIO2, XYLO_AUDIO3, XYLO_IMU, SPECK2, BRAINSCALES2, SPINNAKER2)
}
"""Every chip by its name."""


def chip_named(name: str) -> Chip:
    """The chip called ``name``.

    Raises:
        UsageError: there is none; lists them.
    """
    if name not in CHIPS:
        raise UsageError(f"chip '{name}' is unknown: expected one of {', '.join(CHIPS)}")
    return CHIPS[name]
