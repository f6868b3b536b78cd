"""Hierarchical Context Learning of object components for unsupervised semantic segmentation."""
