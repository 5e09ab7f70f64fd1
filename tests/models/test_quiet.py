from __future__ import annotations

import pytest
from transformers.utils import logging

from edgekd.models.quiet import quiet_transformers


def test_settings_come_back_even_after_an_error():
    def settings():
        return logging.get_verbosity(), logging.is_progress_bar_enabled()

    def fail():
        with quiet_transformers():
            assert settings() == (logging.ERROR, False)
            raise KeyError

    before = settings()
    with pytest.raises(KeyError):
        fail()
    assert settings() == before


def test_bars_that_were_off_stay_off():
    logging.disable_progress_bar()
    try:
        with quiet_transformers():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
