"""Engines that process the images of bulk runs: processes of this machine, or of a Ray cluster."""
