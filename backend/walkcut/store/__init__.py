"""What outlives a request: what is known of projects, in a database, and the cut trees of pictures already seen."""

from walkcut.store.projects import Event, ProjectStore, project_id
from walkcut.store.trees import Place, TreeCache, atomic_file, picture_digest, read_tree, tree_key, write_tree

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
