"""`edgekd serve`: a bundle over HTTP."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from edgekd.errors import require
from edgekd.serving.limits import Limits, flag_of


def _limits(function: Any) -> Any:
    for one in reversed(fields(Limits)):
        function = click.option(
            flag_of(one.name), one.name, type=type(one.default), default=one.default, show_default=True,
            help=one.metadata["help"],
        )(function)  # fmt: skip
    return function


@click.command(name="serve")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option("--port", type=int, default=8000, show_default=True, help="Port; 0: any that is free.")
@click.option("--grace-seconds", type=int, default=8, show_default=True, help="For open requests, after SIGTERM.")
@click.option("--access-log", is_flag=True, help="A JSON object a request, on stderr.")
@_limits
def command(bundle: Path, **flags: Any) -> None:
    """Serve BUNDLE over HTTP until Ctrl-C: POST /predict, GET /healthz, /metrics and /openapi.json.

    The same code as in the image of deploy/docker. A refusal's status is in brackets behind its limit.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve", "serve a bundle")
    from edgekd.serving.server import serve

    limits = Limits(**{one.name: flags.pop(one.name) for one in fields(Limits)})
    # The signal that ends it has been obeyed by then: open requests are answered.
    with contextlib.suppress(KeyboardInterrupt):
        serve(bundle, limits=limits, **flags)
