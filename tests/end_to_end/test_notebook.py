"""The notebook runs as it stands, on the tiny encoder and the fake target."""

import json

import pytest
import yaml

from edgekd.resources import _PACKAGE


@pytest.mark.slow
def test_from_a_csv_to_a_served_model(tmp_path, tiny_encoder, fast_profile, monkeypatch):
    notebook = json.loads((_PACKAGE.parent / "notebooks" / "quickstart.ipynb").read_text())
    profile = tmp_path / "fake.yaml"
    settings = fast_profile.model_dump(mode="json")
    settings["accept"]["min_retained"] = 0.1
    profile.write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    values = {"encoder": str(tiny_encoder), "folder": str(tmp_path), "profile": str(profile), "latency_ms": 5.0}
    told = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        lines = "".join(cell["source"])
        exec(lines, told)  # the notebook is our own
        if "parameters" in cell["metadata"].get("tags", ()):
            told |= values
    assert told["result"].outcome in ("met", "missed")
    assert told["answers"][0]["label"] in {"refund", "delivery", "cancel", "praise"}
