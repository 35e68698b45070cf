"""Label Studio: documents as values (labelling config, tasks, prompts, regions), brush codec, and API client."""

from walkcut.labelstudio.shapes import rle

__all__ = ["rle"]
