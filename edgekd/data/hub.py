"""Data sets of the Hugging Face hub to tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from edgekd.data.files import canonical_split
from edgekd.data.table import Table
from edgekd.errors import DataError, UnavailableError, require

_PATIENCE_SECONDS = 3.0


def read_hub(source: str, config: str | None) -> tuple[dict[str, Table], list[str]]:
    """Load a data set of the hub (or of its local cache).

    Args:
        source: owner/name.

    Returns:
        A table a split, and notes on splits that are not used.

    Raises:
        DataError: There is no such set or configuration.
        UnavailableError: The hub cannot be reached, or the datasets library is not installed.
    """
    datasets = require("datasets", "cpu", f"read {source} from the hub")
    try:
        with _quiet_hub(), _asked_once(datasets, source):
            loaded = datasets.load_dataset(source, config)
    except (ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise DataError(f"{source}: the hub cannot give this data set: {_first_line(error)}") from error
    except OSError as error:  # every network failure of requests, httpx and the hub's client is one
        raise UnavailableError(
            f"{source}: no such file or folder here, and the hub cannot be reached ({_first_line(error)});"
            " pass a local copy: a folder with train.jsonl, .csv or .parquet"
        ) from error
    tables, notes = {}, []
    for name, rows in loaded.items():
        split = "unlabeled" if name == "unsupervised" else canonical_split(name)
        if split is None or split in tables:
            notes.append(f"{source}: split {name} is not used")
        else:
            tables[split] = hub_table(f"{source}[{name}]", rows)
    if not tables:
        raise DataError(f"{source}: no split is named train, validation or test (found {', '.join(loaded)})")
    return tables, notes


@contextmanager
def _asked_once(datasets: Any, source: str) -> Iterator[None]:
    """Where the hub does not answer, `datasets` looks into its local cache at once: it would try for half a minute."""
    before = datasets.config.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(source, timeout=_PATIENCE_SECONDS)
    except HfHubHTTPError:
        pass  # an answer, for `datasets` to explain
    except Exception:  # each library of HTTP has errors of its own
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """The hub's client tells of each retry; one error at the end says as much."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def hub_table(origin: str, rows: Any) -> Table:
    """A `datasets.Dataset` as a table, with its class names."""
    classes = {}
    for name, feature in rows.features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is not None:
            classes[name] = list(names)
    return Table(origin, rows.to_list(), list(range(1, len(rows) + 1)), classes)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
