"""What outlives a request: what is known of projects, in a database, and the cut trees of images already seen."""

from walkcut.storage.project_store import Event, ProjectStore, project_id
from walkcut.storage.tree_cache import Crop, TreeCache, atomic_file, image_digest, read_tree, tree_key, write_tree

__all__ = [
    "BlockPosition",
    "Crop",
    "Event",
    "ProjectStore",
    "TreeCache",
    "atomic_file",
    "image_digest",
    "project_id",
    "read_tree",
    "tree_key",
    "write_tree",
]
