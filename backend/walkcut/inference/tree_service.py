"""Cut trees of images, from the cache or from the model."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from functools import partial

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.inference.model import ImageRequest, TreeModel
from walkcut.inference.queue import Priority, PriorityLock, out_of_time
from walkcut.storage import Crop, TreeCache, image_digest, tree_key
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.spans import span


class TreeService:
    """Cut trees of images: cached ones at once, others from the model, one image at a time."""

    def __init__(self, model: TreeModel, cache: TreeCache, metrics: Metrics | None = None) -> None:
        self._model, self._cache, self._lock, self._metrics = model, cache, PriorityLock(), metrics or Metrics()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.version, self.preset_name = model.version, model.preset_name
        for caller, urgent in (("annotators", True), ("others", False)):
            self._metrics.waiting.labels(caller).set_function(partial(self._lock.waiting, urgent=urgent))

    @property
    def unavailable_reason(self) -> str:
        """Why no image can be segmented now; empty when one can."""
        return "shutting down" if self._lock.closed else self._model.unavailable_reason

    def cached(self, digest: str, crop: Crop | None) -> CutTree | None:
        """Return the cached tree of an image, or of a crop of it; `None` if it is not cached."""
        key = tree_key(digest, self.version, crop)
        tree, source = self._cache.get_from_memory(key), "memory"
        if tree is None:
            tree, source = self._cache.get(key), "file"
        if tree is not None:
            self._metrics.trees.labels(source).inc()
        return tree

    def get_tree(self, data: bytes, crop: Crop | None, priority: Priority) -> CutTree:
        """Return the cut tree of an image file, or of a crop of it.

        Raises `BusyError` at the priority's deadline: the tree that is being made then is still cached for the next
        request. Raises as `TreeModel.segment` too.
        """
        request = ImageRequest(image_digest(data), data, crop)
        if (tree := self.cached(request.digest, crop)) is not None:
            return tree
        with span("wait"):
            self._lock.acquire(priority)
        segmenting = self._thread.submit(copy_context().run, self._segment, request)
        try:
            return segmenting.result(priority.remaining())
        except FutureTimeoutError as error:
            raise out_of_time() from error

    def stop_accepting(self) -> None:
        """Refuse new images, but finish the one that is being segmented."""
        self._lock.close()

    def close(self) -> None:
        """Release the model."""
        self._lock.close()
        self._model.close()
        self._thread.shutdown()

    def _segment(self, request: ImageRequest) -> CutTree:
        """Segment and cache an image, unless an earlier request did so in the meantime."""
        try:
            tree = self.cached(request.digest, request.crop)
            if tree is None:
                file = self._model.segment(request)
                self._metrics.trees.labels("model").inc()
                tree = CutTree.from_bytes(file)
                self._cache.put(tree_key(request.digest, self.version, request.crop), tree, file)
            return tree
        finally:
            self._lock.release()
