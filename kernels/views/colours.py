"""What both forms of photometric views compute with."""

DRAWS = 6
"""Numbers that a view draws, see `kernels.views.photometric_views`."""
GREY = (0.299, 0.587, 0.114)
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.321), (0.211, -0.523, 0.311))
"""Luma and two axes of colour of red, green and blue, with DALI's digits."""
LARGEST = 255.0
