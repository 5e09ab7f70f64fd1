"""The bundle that is served here is the one that is deployed there."""

from ..deploy.conftest import bundle, expected

__all__ = ["bundle", "expected"]
