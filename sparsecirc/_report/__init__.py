"""One self-contained HTML page from the results of other commands."""

from sparsecirc._report._page import render

__all__ = ["render"]
