"""Silence around libraries that advise their developers on our users' terminals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's warnings, and any log handler that it would install, from the user."""
    # logging.basicConfig, and so the root logger's functions, install nothing where a handler is.
    handler, disabled = logging.NullHandler(), logging.root.manager.disable
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(handler)
