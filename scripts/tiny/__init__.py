"""How the `tiny` backbone is pretrained on generated scenes, without labels."""
