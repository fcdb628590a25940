"""Rewiring: connections leave, as many grow, and nothing of the size of the matrix is made."""
