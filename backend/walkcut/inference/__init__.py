"""From a task to its predictions: the model, its process and queue, and the predictor."""
