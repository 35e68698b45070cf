from tests.builders.http_site import elsewhere, site

__all__ = ["elsewhere", "site"]
