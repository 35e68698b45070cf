"""Masks as arrays: their parts, and polygons and ellipses as masks and back."""
