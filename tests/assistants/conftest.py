"""The planner of the pipeline's tests, here too."""

from tests.pipeline.conftest import planner, request_  # noqa: F401
