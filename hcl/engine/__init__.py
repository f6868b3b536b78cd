"""The training engine: loop, step, checkpoints, ranks and logs."""
