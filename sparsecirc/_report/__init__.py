"""One self-contained HTML page from the results of other commands."""

from sparsecirc._report._continual import CONTINUAL_FILE, by_method, figures, read_continual, render_continual
from sparsecirc._report._page import render

__all__ = ["CONTINUAL_FILE", "by_method", "figures", "read_continual", "render", "render_continual"]
