"""The operations of HCL, each usable without the rest of the project."""
