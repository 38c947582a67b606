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
    from tonewood.files.container import read
    from tonewood.workflow import card

    if markdown and json_:
        raise CallError("--markdown and --json cannot both be had: leave one")
    found = read(model).described()
    if markdown:
        print(card.markdown(found), end="")
    elif json_:
        report.emit({"model": model, "digest": found.digest, **report.card(found)})
    else:
        print(f"model      {shown(model)}")
        report.print_card(found)
