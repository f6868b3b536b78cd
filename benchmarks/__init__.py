"""Benchmarks, and the published algorithm as their baseline."""
