import pytest


@pytest.fixture(autouse=True)
def in_its_own_folder(own_folder):
    """Every command is run there."""
