"""Bulk runs: predictions for many images, into files or a Label Studio project."""
