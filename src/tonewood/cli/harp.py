"""`tonewood harp`: an endpoint for HARP, and through it for audio workstations."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli.options import ModelOption
from tonewood.errors import CallError, shown


def harp(
    model: ModelOption = "cello",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 7860,
    host: Annotated[str, typer.Option(help="This machine's own: 127.0.0.1 or ::1.")] = "127.0.0.1",
) -> None:
    """Serve a model to HARP, a sample editor for audio workstations; prints its address."""
    from tonewood import serving

    if not serving.is_local(host):
        raise CallError(
            f"{shown(host)} is not this machine's own address, and HARP sends no token: serve at "
            "127.0.0.1, and reach it through a tunnel, as in ssh -L 7860:127.0.0.1:7860"
        )
    serving.check_extra("tonewood harp", "harp", "python_multipart")
    from tonewood import harp as endpoint
    from tonewood.files.modelfile import load

    loaded = load(model)
    with tempfile.TemporaryDirectory(prefix="tonewood-", ignore_cleanup_errors=True) as folder:
        made = serving.guarded(endpoint.app(loaded, Path(folder)), larger=endpoint.LARGER)

        def ready(bound: int) -> None:
            print(serving.address(host, bound), flush=True)

        serving.serve(made, host=host, port=port, ready=ready)
