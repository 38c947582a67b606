"""`tonewood info`: a model's card."""

from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption
from tonewood.errors import CallError, printable


def info_command(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As the page that model hubs show.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show a model's card."""
    from tonewood.files.container import read_model_file
    from tonewood.workflow import card

    if markdown and json_:
        raise CallError("--markdown and --json cannot both be had: leave one")
    found = read_model_file(model).info()
    if markdown:
        print(card.card_markdown(found), end="")
    elif json_:
        report.print_json({"model": model, "digest": found.digest, **report.card_json(found)})
    else:
        print(f"model      {printable(model)}")
        report.print_card(found)
