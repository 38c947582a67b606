"""`tonewood harp`: an endpoint for HARP, and through it for audio workstations."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli.options import ModelOption
from tonewood.errors import CallError, printable


def harp_command(
    model: ModelOption = "cello",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 7860,
    host: Annotated[str, typer.Option(help="This machine's own: 127.0.0.1 or ::1.")] = "127.0.0.1",
) -> None:
    """Serve a model to HARP, a sample editor for audio workstations; prints its address."""
    from tonewood import serving

    if not serving.is_loopback(host):
        raise CallError(
            f"{printable(host)} is not this machine's own address, and HARP sends no token: serve at "
            "127.0.0.1, and reach it through a tunnel, as in ssh -L 7860:127.0.0.1:7860"
        )
    serving.require_server_extra("tonewood harp", "harp", "python_multipart")
    from tonewood import harp as endpoint
    from tonewood.files.modelfile import load_model

    loaded = load_model(model)
    with tempfile.TemporaryDirectory(prefix="tonewood-", ignore_cleanup_errors=True) as folder:
        made = serving.secure(endpoint.create_harp_app(loaded, Path(folder)), limits_by_path=endpoint.UPLOAD_LIMITS)

        def ready(bound: int) -> None:
            print(serving.server_url(host, bound), flush=True)

        serving.run_server(made, host=host, port=port, on_ready=ready)
