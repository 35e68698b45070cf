"""Whole data sets pre-labelled: where images come from, how the work is done and taken up again, what comes out."""
