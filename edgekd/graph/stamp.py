"""What an ONNX file says of itself, for whoever finds it alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import helper

import edgekd
from edgekd.graph.check import read_model
from edgekd.graph.writer import save_model


def write_stamped(source: Path, target: Path, facts: Mapping[str, str]) -> None:
    """Copy an ONNX file with metadata beside its graph: producer, and facts by name.

    Args:
        source: The file.
        target: The copy; replaced if it is there.
        facts: Such as "labels"; read back by `InferenceSession.get_modelmeta().custom_metadata_map`.

    Raises:
        EdgekdError: The file is broken.
    """
    model = read_model(source)
    model.producer_name, model.producer_version = "edgekd", edgekd.__version__
    helper.set_model_props(model, dict(facts))
    save_model(model, target)
