"""MoGoClustering: what the loss contrasts tokens against."""
