"""Masks as arrays: their connected parts, polygons around them, and shapes filled with pixels."""
