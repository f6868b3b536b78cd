"""The grid of a level's patches."""

Grid = tuple[int, int]
"""Rows and columns."""
