"""Pretraining of the `tiny` backbone on generated scenes, without labels."""
