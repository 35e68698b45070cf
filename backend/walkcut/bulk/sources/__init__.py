"""Sources of images for bulk runs: folders, manifests, cloud storage, tasks of Label Studio projects."""
