"""A run as one HTML page: its losses, its settings, its scores, and what the model sees."""
