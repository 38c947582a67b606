"""`tonewood info`: a model's card."""

from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption
from tonewood.errors import shown


def info(
    model: Annotated[str, typer.Argument(help="Model file, or the name of a bundled model.")],
    json_: JsonOption = False,
) -> None:
    """Show a model's card."""
    from tonewood.files.modelfile import load

    loaded = load(model)
    if json_:
        report.emit({"model": model, "digest": loaded.digest, **report.card(loaded)})
    else:
        print(f"model      {shown(model)}")
        report.print_card(loaded)
