"""What all tests share: shapes and types of every call are checked as they run, and examples are the same each time."""

import os
import tempfile

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import typecheck

install_import_hook("walkcut", f"{typecheck.__name__}.checked")

settings.register_profile("walkcut", derandomize=True, deadline=None, database=None)
settings.load_profile("walkcut")

DATA = tempfile.TemporaryDirectory(prefix="walkcut-data-")
os.environ["XDG_DATA_HOME"] = DATA.name  # no weights lie there: the model `auto` is classical, whatever the user has
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else a thread of Ray's asks, and logs, until the last test has ended
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's name; else its workers starve on a busy machine
torch.set_num_threads(1)  # tiny operations wait longer for other threads than they take
