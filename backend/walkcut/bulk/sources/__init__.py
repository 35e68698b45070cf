"""Sources of images for bulk runs: folders, manifests, cloud storage, Label Studio projects."""
