"""Pure segmentation: tensors in, tensors and cut trees out; no path, no request, no environment."""
