"""Segmentation algorithms: tensors in, tensors out."""
