"""Measurements, and the published algorithm that they are held against."""
