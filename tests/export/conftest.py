"""The results of the report's tests, here too."""

from tests.report.conftest import minimal, sample  # noqa: F401
