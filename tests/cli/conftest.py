import pytest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """No command of a test meets what stands in the folder that the tests are run in, such as a demo's ./bundle."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
