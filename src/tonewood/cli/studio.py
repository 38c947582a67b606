"""`tonewood studio`: a page to see, hear and change what an enhancement does."""

import os
import secrets
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli.options import ModelOption
from tonewood.errors import CallError, shown


def studio(
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
    from tonewood.serving import Limits, address, check_extra, is_local, serve

    check_extra("the studio", "studio")
    from tonewood.studio.app import UPLOAD
    from tonewood.studio.app import studio as guarded
    from tonewood.studio.desk import Desk

    if root is not None and not root.is_dir():
        raise CallError(f"{shown(root)} is no folder: name one whose folders may be chosen")
    if root is None and is_local(host):
        root = Path.home()
    token = None if is_local(host) else secrets.token_urlsafe(24)
    desk = Desk(folder or default_folder(), model, root)

    def ready(bound: int) -> None:
        place = address(host, bound, token)
        print(place, flush=True)
        if not no_browser and sys.stdout.isatty():
            webbrowser.open(place)

    limits = Limits(round(upload_gb * 2**30), UPLOAD.seconds)
    app = guarded(desk, host=host, token=token, upload=limits)
    try:
        serve(app, host=host, port=port, ready=ready)
    finally:
        desk.close()


def default_folder() -> Path:
    """Where this system keeps what programs make for a user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "tonewood" / "studio"
