"""Hierarchies of segments: cut trees and the granularities that choose a level of them; NumPy only."""
