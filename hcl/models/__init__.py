"""The networks of HCL, and the files their weights come from."""
