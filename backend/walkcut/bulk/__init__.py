"""Whole data sets pre-labelled: where pictures come from, how the work is done and taken up again, what comes out."""
