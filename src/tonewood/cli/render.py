"""`tonewood render`: a recipe → the same bytes again."""

from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption, RecipeArgument
from tonewood.errors import printable


def render_command(
    recipe: RecipeArgument,
    input_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]",
            readable=False,
            help="The recording; else it is looked for beside the recipe and the output.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", readable=False, help="File, or a folder that is there."),
    ] = ...,  # type: ignore[assignment]
    overwrite: OverwriteOption = False,
    json_: JsonOption = False,
) -> None:
    """Make a recipe's output again: the same bytes."""
    from tonewood.workflow import rerender

    done = rerender.render_recipe(recipe, input_path, output, overwrite=overwrite)
    if json_:
        report.print_json(
            {
                "recipe": str(done.recipe),
                "input": str(done.input),
                "output": str(done.output),
                "sha256": done.sha256,
                "same": done.identical,
            }
        )
    else:
        print(printable(done.input))
        print(f"  recipe   {printable(done.recipe)}")
        print(f"  sound    {printable(done.output)}")
        if done.identical:
            print("  bytes    the same as the first time")
    if done.identical is False:
        report.print_stderr(
            f"warning: {printable(done.output)}: not the bytes of the first time, which another "
            "version or another machine's arithmetic made"
        )
