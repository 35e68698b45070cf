"""Engines that carry out bulk runs: processes of this machine, or a Ray cluster."""
