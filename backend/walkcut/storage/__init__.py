"""Everything that outlives a request: the projects' database, cached cut trees, quarantined images."""

from walkcut.storage.annotation_store import AnnotationRow, Attempt, Backlog, SetAside
from walkcut.storage.files import atomic_file
from walkcut.storage.project_store import ProjectStore
from walkcut.storage.tree_cache import Crop, TreeCache, image_digest, read_tree, tree_key, write_tree

__all__ = [
    "AnnotationRow",
    "Attempt",
    "Backlog",
    "Crop",
    "ProjectStore",
    "SetAside",
    "TreeCache",
    "atomic_file",
    "image_digest",
    "read_tree",
    "tree_key",
    "write_tree",
]
