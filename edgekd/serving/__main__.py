"""`python -m edgekd.serving BUNDLE`: the server as its image starts it, without the rest of EdgeKD."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from edgekd.errors import EdgekdError
from edgekd.serving.limits import Limits, flag_of
from edgekd.serving.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="edgekd.serving", description="Serve an EdgeKD bundle over HTTP.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    for one in fields(Limits):
        parser.add_argument(
            flag_of(one.name), dest=one.name, type=type(one.default), default=one.default, help=one.metadata["help"]
        )
    parser.add_argument("--grace-seconds", type=int, default=8, help="for open requests, after SIGTERM")
    parser.add_argument("--access-log", action="store_true", help="a JSON object a request, on stderr")
    options = vars(parser.parse_args(arguments))
    limits = {one.name: options.pop(one.name) for one in fields(Limits)}
    try:
        serve(limits=Limits(**limits), **options)
    except EdgekdError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
