"""Learning from annotations: examples of labels, the best granularity, oracle merging."""
