"""Masks beside a torch model, applied in place after each optimizer step."""

from sparsecirc.masks._attach import Attachment
from sparsecirc.masks._masks import Masks, prune_model
from sparsecirc.masks._weights import matrix_shape

__all__ = ["Attachment", "Masks", "matrix_shape", "prune_model"]
