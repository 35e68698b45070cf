"""The stand-ins of the tests of images: two web servers."""

from tests.images.conftest import elsewhere, site

__all__ = ["elsewhere", "site"]
