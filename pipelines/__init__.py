"""From files to batches of tensors, with DALI: two training views, and labelled images."""
