"""Everything that outlives a request: the projects' database, cached cut trees, quarantined images."""

from walkcut.storage.files import atomic_file
from walkcut.storage.project_store import Event, FeedbackRow, ProcessedAnnotation, ProjectStore
from walkcut.storage.tree_cache import Crop, TreeCache, image_digest, read_tree, tree_key, write_tree

__all__ = [
    "Crop",
    "Event",
    "FeedbackRow",
    "ProcessedAnnotation",
    "ProjectStore",
    "TreeCache",
    "atomic_file",
    "image_digest",
    "read_tree",
    "tree_key",
    "write_tree",
]
