"""A local page on which one clicks a part of a photograph and sees where else that component is."""
