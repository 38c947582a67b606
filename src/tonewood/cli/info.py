"""`tonewood info`: a model's card."""

from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption
from tonewood.errors import CallError, shown


def info(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As the page that model hubs show.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show a model's card."""
    from tonewood.files.modelfile import load
    from tonewood.workflow import card

    if markdown and json_:
        raise CallError("--markdown and --json cannot both be had: leave one")
    loaded = load(model)
    if markdown:
        print(card.markdown(loaded), end="")
    elif json_:
        report.emit({"model": model, "digest": loaded.digest, **report.card(loaded)})
    else:
        print(f"model      {shown(model)}")
        report.print_card(loaded)
