"""Read image files into batches of tensors with DALI: two training views, or labelled images."""
