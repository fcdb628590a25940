"""Masks beside a torch model, applied in place after each optimizer step."""

from sparsecirc.masks._attach import Attachment
from sparsecirc.masks._masks import Masks, prune_model

__all__ = ["Attachment", "Masks", "prune_model"]
