"""Constants of both forms of photometric views."""

DRAWS = 6
"""Number of draws of a view, see `kernels.views.photometric_views`."""
GREY = (0.299, 0.587, 0.114)
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.321), (0.211, -0.523, 0.311))
"""Weights of red, green and blue in luma and in two colour axes, with DALI's digits."""
LARGEST = 255.0
