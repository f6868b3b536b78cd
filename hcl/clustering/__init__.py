"""MoGoClustering: the clusters that the loss contrasts tokens against."""
