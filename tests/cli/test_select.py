"""--select is the profile's field."""

import json

from tests.cli.test_cli import run


def test_select(capsys):
    for arguments, select in (((), "kept"), (("--select", "accuracy"), "accuracy")):
        code, out, err = run(capsys, "compress", "--demo", "--latency-ms", "5", "--dry-run", "--json", *arguments)
        assert code == 0, err
        assert json.loads(out)["request"]["profile"]["search"]["select"] == select
