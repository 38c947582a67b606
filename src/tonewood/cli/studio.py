"""`tonewood studio`: a page to see, hear and change what an enhancement does."""

import os
import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli.options import ModelOption
from tonewood.errors import CallError, printable


def studio_command(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 8765,
    model: ModelOption = "cello",
    host: Annotated[
        str, typer.Option(help="Address to serve at; all but this machine's own need the token.")
    ] = "127.0.0.1",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, open nothing.")
    ] = False,
    upload_gb: Annotated[
        float, typer.Option(min=0.001, max=1_000, help="Largest recording that is taken.")
    ] = 2.0,
    folder: Annotated[
        Path | None, typer.Option(readable=False, help="Where sessions and models are kept.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(readable=False, help="Folder below which the page may choose folders."),
    ] = None,
) -> None:
    """Open the studio in the browser; prints its address."""
    from tonewood.serving import RequestLimits, server_url, require_server_extra, is_loopback, run_server

    require_server_extra("the studio", "studio")
    from tonewood.studio.app import DEFAULT_UPLOAD_LIMITS
    from tonewood.studio.app import create_secure_studio_app as guarded
    from tonewood.studio.desk import StudioState

    if root is not None and not root.is_dir():
        raise CallError(f"{printable(root)} is no folder: name one whose folders may be chosen")
    if root is None and is_loopback(host):
        root = Path.home()
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    desk = StudioState(folder or default_studio_folder(), model, root)

    def ready(bound: int) -> None:
        place = server_url(host, bound, token)
        print(place, flush=True)
        if not no_browser and sys.stdout.isatty():
            webbrowser.open(place)

    limits = RequestLimits(round(upload_gb * 2**30), DEFAULT_UPLOAD_LIMITS.seconds)
    app = guarded(desk, host=host, token=token, upload=limits)
    try:
        run_server(app, host=host, port=port, on_ready=ready)
    finally:
        desk.close()


def default_studio_folder() -> Path:
    """Where this system keeps what programs make for a user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "tonewood" / "studio"
