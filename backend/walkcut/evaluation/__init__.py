"""Evaluation against human ground truth: metrics, data sets, the papers' protocols, baselines and the report."""
