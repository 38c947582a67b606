"""A recipe and the recording that it was made from → the same output again."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import OutputError, RecipeError, shown
from tonewood.files import recipe as recipes
from tonewood.files.audio import Stream, sha256
from tonewood.files.formats import SUFFIXES, output_name
from tonewood.files.recipe import Recipe
from tonewood.masking.render import rendered_blocks
from tonewood.workflow.batch import all_or_none, check_outputs, save_sound
from tonewood.workflow.layout import Job


class Rerendered(NamedTuple):
    """An output that was made again.

    Parameters
    ----------
    same : bool or None
        Whether it has the bytes of the first; None where the recipe does not say what those were,
        or where another format was asked for.
    """

    recipe: Path
    input: Path
    output: Path
    sha256: str
    same: bool | None


def render(path: Path, named: Path | None, out: Path, *, overwrite: bool = False) -> Rerendered:
    """Make a recipe's output again.

    Parameters
    ----------
    named : Path, optional
        The recording. Without it one of its name is looked for beside the recipe and beside `out`.
    out : Path
        A file, or a folder that is there; in it the output gets the recording's name.

    Raises
    ------
    RecipeError
        The recipe is none, or the recording is not found or is another one.
    OutputError, AudioError
        As of `enhance_files`.
    """
    recipe = recipes.load(path)
    output = out / output_name(Path(Path(recipe.input.name).name)) if out.is_dir() else out
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{shown(output)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    job = Job(_input(path, recipe, named, output), output)
    if job.input.resolve() == output.resolve():
        raise OutputError(f"{shown(output)} is the input itself: name another output")
    check_outputs(job, [output], overwrite)
    stream = Stream(job.input)
    settings = recipe.settings.render
    shape = (stream.channels, recipe.input.samples)
    with all_or_none([output]):
        save_sound(job, stream, _blocks(stream, recipe), shape, settings, overwrite=overwrite)
    digest = sha256(output)
    same = None
    if recipe.output_sha256 and output.suffix.lower() == _suffix(path):
        same = digest == recipe.output_sha256
    return Rerendered(path, job.input, output, digest, same)


def _blocks(stream: Stream, recipe: Recipe) -> Iterator[NDArray[np.float32]]:
    """The output (channels, samples) at a time, with the gain that the recipe tells."""
    settings = recipe.settings.render
    if settings.amount == 0:
        yield from stream.blocks()
        return
    factor = np.float32(10 ** (recipe.gain_db / 20))
    mask = recipe.mask.long_mask()
    made = rendered_blocks(
        stream.blocks(), stream.rate, stream.channels, mask, settings, recipe.spectrum
    )
    for block in made:
        yield block * factor


def _suffix(path: Path) -> str:
    """Suffix of the output that a recipe lies beside, by the recipe's own name."""
    return Path(path.name.removesuffix(recipes.SUFFIX)).suffix.lower()


def _input(path: Path, recipe: Recipe, named: Path | None, output: Path) -> Path:
    wanted = recipe.input
    if named is not None:
        found = sha256(named)
        if found != wanted.sha256:
            raise RecipeError(
                f"{shown(named)} is not the recording that {shown(path.name)} was made from "
                f"(SHA-256 {found[:8]}…, not {wanted.sha256[:8]}…): name {wanted.name}"
            )
        return named
    there = list(_candidates(path, wanted.name, output))
    for candidate in there:
        if sha256(candidate) == wanted.sha256:
            return candidate
    what = "lies" if not there else "with the recipe's SHA-256 lies"
    raise RecipeError(
        f"no {wanted.name} {what} beside {shown(path)} or beside the output: "
        "name the recording after the recipe"
    )


def _candidates(path: Path, name: str, output: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((path.parent, output.parent)):
        if (folder / Path(name).name).is_file():
            yield folder / Path(name).name
