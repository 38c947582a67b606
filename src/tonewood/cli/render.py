"""`tonewood render`: a recipe → the same bytes again."""

from pathlib import Path
from typing import Annotated

import typer

from tonewood.cli import report
from tonewood.cli.options import JsonOption, OverwriteOption, RecipeArgument
from tonewood.errors import shown


def render(
    recipe: RecipeArgument,
    named: Annotated[
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

    done = rerender.render(recipe, named, output, overwrite=overwrite)
    if json_:
        report.emit(
            {
                "recipe": str(done.recipe),
                "input": str(done.input),
                "output": str(done.output),
                "sha256": done.sha256,
                "same": done.same,
            }
        )
    else:
        print(shown(done.input))
        print(f"  recipe   {shown(done.recipe)}")
        print(f"  sound    {shown(done.output)}")
        if done.same:
            print("  bytes    the same as the first time")
    if done.same is False:
        report.say(
            f"warning: {shown(done.output)}: not the bytes of the first time, which another "
            "version or another machine's arithmetic made"
        )
