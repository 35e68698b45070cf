"""Images: reference in task data -> bytes (`ImageLoader`) -> upright RGB array (`decode`)."""

from walkcut.images.decode import IMAGE_SUFFIXES, DecodeLimits, decode
from walkcut.images.fetch import Fetcher
from walkcut.images.loader import ImageLoader
from walkcut.images.policy import FetchPolicy, LabelStudioAccess
from walkcut.images.redact import redact
from walkcut.images.transport import Deadline

__all__ = [
    "IMAGE_SUFFIXES",
    "Deadline",
    "DecodeLimits",
    "FetchPolicy",
    "Fetcher",
    "ImageLoader",
    "LabelStudioAccess",
    "decode",
    "redact",
]
