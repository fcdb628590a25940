"""Prune recurrent and spiking networks, compile them to kernels that are really faster, prove it, export them."""

__version__ = "0.1.0"
