"""What outlives a request: what is known of projects, in a database, and the cut trees of pictures already seen."""

from walkcut.storage.project_store import Event, ProjectStore, project_id
from walkcut.storage.tree_cache import Place, TreeCache, atomic_file, picture_digest, read_tree, tree_key, write_tree

__all__ = [
    "Event",
    "Place",
    "ProjectStore",
    "TreeCache",
    "atomic_file",
    "picture_digest",
    "project_id",
    "read_tree",
    "tree_key",
    "write_tree",
]
