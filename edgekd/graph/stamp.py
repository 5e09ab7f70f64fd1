"""What an ONNX file says of itself, for whoever finds it alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import helper

import edgekd
from edgekd.graph.check import read_model
from edgekd.graph.writer import save_model


def stamp(path: Path, facts: Mapping[str, str]) -> None:
    """Write metadata into an ONNX file: producer, and facts by name.

    Args:
        facts: Such as "labels"; read back by `InferenceSession.get_modelmeta().custom_metadata_map`.

    Raises:
        EdgekdError: The file is broken.
    """
    model = read_model(path)
    model.producer_name, model.producer_version = "edgekd", edgekd.__version__
    helper.set_model_props(model, dict(facts))
    save_model(model, path)
