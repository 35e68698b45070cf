"""Images: reference in task data -> bytes (`ImageLoader`) -> upright RGB array (`decode`)."""

from walkcut.images.decode import DecodeLimits, decode
from walkcut.images.fetch import ImageLoader
from walkcut.images.policy import FetchPolicy, LabelStudioAccess
from walkcut.images.redact import kind_of, redact, redacted_text
from walkcut.images.transport import Deadline

__all__ = [
    "Deadline",
    "DecodeLimits",
    "FetchPolicy",
    "ImageLoader",
    "LabelStudioAccess",
    "decode",
    "kind_of",
    "redact",
    "redacted_text",
]
