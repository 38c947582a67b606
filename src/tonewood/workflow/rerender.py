"""A recipe and the recording that it was made from → the same output again."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import OutputError, RecipeError, printable
from tonewood.files import recipe as recipes
from tonewood.files.audio import AudioReader, file_sha256
from tonewood.files.formats import WRITABLE_SUFFIXES, default_output_name
from tonewood.files.recipe import Recipe
from tonewood.masking.render import render_blocks
from tonewood.workflow.batch import cleanup_on_error, check_outputs, write_output_audio
from tonewood.workflow.layout import FileJob


class RerenderResult(NamedTuple):
    """An output that was made again.

    Parameters
    ----------
    identical : bool or None
        Whether it has the bytes of the first; None where the recipe does not say what those were,
        or where another format was asked for.
    """

    recipe: Path
    input: Path
    output: Path
    sha256: str
    identical: bool | None


def render_recipe(path: Path, recording: Path | None, out: Path, *, overwrite: bool = False) -> RerenderResult:
    """Make a recipe's output again.

    Parameters
    ----------
    recording : Path, optional
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
    recipe = recipes.load_recipe(path)
    output = out / default_output_name(Path(Path(recipe.input.name).name)) if out.is_dir() else out
    if output.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError(
            f"{printable(output)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    job = FileJob(_find_recipe_input(path, recipe, recording, output), output)
    if job.input.resolve() == output.resolve():
        raise OutputError(f"{printable(output)} is the input itself: name another output")
    check_outputs(job, [output], overwrite)
    stream = AudioReader(job.input)
    settings = recipe.settings.render
    shape = (stream.channels, recipe.input.samples)
    with cleanup_on_error([output]):
        write_output_audio(job, stream, _output_blocks(stream, recipe), shape, settings, overwrite=overwrite)
    digest = file_sha256(output)
    same = None
    if recipe.output_sha256 and output.suffix.lower() == _recorded_suffix(path):
        same = digest == recipe.output_sha256
    return RerenderResult(path, job.input, output, digest, same)


def _output_blocks(stream: AudioReader, recipe: Recipe) -> Iterator[NDArray[np.float32]]:
    """The output (channels, samples) at a time, with the gain that the recipe tells."""
    settings = recipe.settings.render
    if settings.amount == 0:
        yield from stream.blocks()
        return
    factor = np.float32(10 ** (recipe.gain_db / 20))
    mask = recipe.mask.to_lazy_mask()
    made = render_blocks(
        stream.blocks(), stream.rate, stream.channels, mask, settings, recipe.spectrum
    )
    for block in made:
        yield block * factor


def _recorded_suffix(path: Path) -> str:
    """Suffix of the output that a recipe lies beside, by the recipe's own name."""
    return Path(path.name.removesuffix(recipes.RECIPE_SUFFIX)).suffix.lower()


def _find_recipe_input(path: Path, recipe: Recipe, recording: Path | None, output: Path) -> Path:
    wanted = recipe.input
    if recording is not None:
        found = file_sha256(recording)
        if found != wanted.sha256:
            raise RecipeError(
                f"{printable(recording)} is not the recording that {printable(path.name)} was made from "
                f"(SHA-256 {found[:8]}…, not {wanted.sha256[:8]}…): name {wanted.name}"
            )
        return recording
    there = list(_input_candidates(path, wanted.name, output))
    for candidate in there:
        if file_sha256(candidate) == wanted.sha256:
            return candidate
    what = "lies" if not there else "with the recipe's SHA-256 lies"
    raise RecipeError(
        f"no {wanted.name} {what} beside {printable(path)} or beside the output: "
        "name the recording after the recipe"
    )


def _input_candidates(path: Path, name: str, output: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((path.parent, output.parent)):
        if (folder / Path(name).name).is_file():
            yield folder / Path(name).name
