"""A local web page: click a part of a photograph and see where else that component occurs."""
