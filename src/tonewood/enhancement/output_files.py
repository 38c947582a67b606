"""Which recording becomes which file.

Whether an earlier run made just what is asked for.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat, default_output_name
from tonewood.audio_io.reader import AudioReader, write_recording_blocks
from tonewood.audio_io.recording import file_sha256, find_audio_files
from tonewood.audio_io.remote import Location
from tonewood.enhancement import recipe
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.recipe import Recipe, TransferRecord
from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    OutputError,
    RecipeError,
    TonewoodError,
    printable,
)
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.utils.atomic_write import atomic_path


class FileJob(NamedTuple):
    """One recording and the file it becomes."""

    input: Path
    output: Path


class FileFailure(NamedTuple):
    """A file could not be done; the others go on."""

    input: Location
    error: TonewoodError


def iter_recordings(inputs: Sequence[Path]) -> Iterator[Path | FileFailure]:
    """Every recording that the inputs name: files as they are, folders with all below them.

    A folder without audio is a `FileFailure` in its place.
    """
    for item in inputs:
        try:
            yield from find_audio_files(item) if item.is_dir() else [item]
        except FolderError as error:
            yield FileFailure(item, error)


def plan_file_jobs(inputs: Sequence[Path], out: Path) -> list[FileJob | FileFailure]:
    """Lay out which recording becomes which file; folders keep their tree.

    `out` is a file when there is one input file and `out` is named like one; else a folder. What
    lies below `out` with a recipe beside it is an earlier output, and no input. A folder without
    audio is a `FileFailure` in its place.

    Raises
    ------
    CallError
        Two recordings would become one file, or `out` is a file where a folder is needed.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not out.is_dir() and out.suffix.lower() in WRITABLE_SUFFIXES:
        return [FileJob(inputs[0], out)]
    if not out.is_dir() and (out.exists() or (not single and out.suffix.lower() in WRITABLE_SUFFIXES)):
        raise CallError(f"{printable(out)} names a file; several outputs need a folder: name one")
    if single and out.suffix and not out.is_dir():
        raise CallError(
            f"{printable(out)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    laid: list[FileJob | FileFailure] = []
    taken: dict[Path, Path] = {}
    for job in _iter_jobs(inputs, out):
        if isinstance(job, FileJob):
            other = taken.get(job.output)
            if other and is_same_file(other, job.input):
                continue  # named twice
            if other:
                raise CallError(
                    f"{printable(other)} and {printable(job.input)} would both become "
                    f"{printable(job.output)}: enhance them into two folders"
                )
            taken[job.output] = job.input
        laid.append(job)
    return laid


def _iter_jobs(inputs: Sequence[Path], out: Path) -> Iterator[FileJob | FileFailure]:
    for item in inputs:
        if not item.is_dir():
            yield FileJob(item, out / default_output_name(Path(item.name)))
            continue
        try:
            inside = [path for path in find_audio_files(item) if not _is_earlier_output(path, out)]
        except FolderError as error:
            yield FileFailure(item, error)
            continue
        if not inside:
            yield FileFailure(
                item,
                FolderError(f"{printable(item)} holds nothing but earlier outputs: name another input"),
            )
        for path in inside:
            yield FileJob(path, out / default_output_name(path.relative_to(item)))


def _is_earlier_output(path: Path, out: Path) -> bool:
    return sidecar_path(path).exists() and path.resolve().is_relative_to(out.resolve())


def sidecar_path(output: Path, suffix: str = recipe.RECIPE_SUFFIX) -> Path:
    """Name of a file that belongs to an output: its recipe, or its picture."""
    return output.with_name(output.name + suffix)


def is_same_file(a: Path, b: Path) -> bool:
    """Whether two paths are one file."""
    return a.resolve() == b.resolve()


def output_conflict(job: FileJob, inputs: set[Path]) -> OutputError | None:
    """Why a recording may not become that file, of all resolved `inputs`; None if it may."""
    if job.output.resolve() not in inputs:
        return None
    if is_same_file(*job):
        return input_is_output_error(job.output)
    return OutputError(f"{printable(job.output)} is an input too: name another output")


def input_is_output_error(output: Location) -> OutputError:
    """Why a recording may not become itself."""
    return OutputError(f"{printable(output)} is the input itself: name another output")


@dataclass(frozen=True)
class OutputKey:
    """What decides an output: the recording's hash, the model's, the settings."""

    input_sha256: str
    model: str
    settings: EnhanceSettings
    carried: TransferRecord | None = None

    def matches(self, recipe: Recipe) -> bool:
        """Whether a recipe tells of just that."""
        return self == OutputKey(recipe.input.sha256, recipe.model.digest, recipe.settings, recipe.carried)

    def find_finished(self, job: FileJob, picture: Path | None) -> Recipe | None:
        """Recipe of what an earlier run made; None if that is to be made, or another lies there."""
        recipe = self._matching_recipe(job)
        if recipe is None or not job.output.exists():
            return None
        whole = recipe.output_sha256 == file_sha256(job.output)
        return recipe if whole and (picture is None or picture.exists()) else None

    def is_unfinished(self, job: FileJob) -> bool:
        """Whether a recipe of just that lies there without its sound.

        A run that was killed left it, or one that goes on beside this one is about to be done. So
        it stays until there is another like it to take its place.
        """
        return self._matching_recipe(job) is not None and not job.output.exists()

    def _matching_recipe(self, job: FileJob) -> Recipe | None:
        """The recipe that lies there, if it tells of just that."""
        try:
            recipe = recipes.load_recipe(sidecar_path(job.output))
        except RecipeError:
            return None
        return recipe if self.matches(recipe) else None


class FileStarted(NamedTuple):
    """Work on a file begins; it is the number-th of so many."""

    number: int
    total: int
    input: Location


def write_output_audio(
    job: FileJob,
    stream: AudioReader,
    blocks: Iterable[NDArray[np.float32]],
    shape: tuple[int, int],
    settings: RenderSettings,
    *,
    overwrite: bool,
    before_publish: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write what became of a recording, in its own format or what the output's name asks for.

    `before_publish` is called with the file once it is whole, before it takes its name.
    """
    form = AudioFormat.for_path(job.output, stream.format)
    if settings.amount == 0 and form == stream.format:
        # The file itself: exact even where a float32 is not, as in 32-bit integers and mp3.
        with atomic_path(job.output, overwrite) as temporary:
            try:
                shutil.copyfile(job.input, temporary)
            except FileNotFoundError as error:
                raise AudioError(f"{printable(job.input)} does not exist: check its name") from error
            before_publish(temporary)
    else:
        rate, like = stream.rate, job.input
        write_recording_blocks(
            job.output,
            blocks,
            shape,
            rate,
            form,
            overwrite=overwrite,
            before_publish=before_publish,
            tags_from=like,
        )


def check_outputs(job: FileJob, outputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if not job.input.exists():
        raise AudioError(f"{printable(job.input)} does not exist: check its name")
    for path in outputs:
        if path.is_dir():
            raise OutputError(f"{printable(path)} is a folder, not a file: name another output")
        if path.exists() and not overwrite:
            raise OutputError(f"{printable(path)} exists: name another output or pass --overwrite")
    there = _existing_parent(job.output)
    why = "" if there.is_dir() else f"{printable(there)} is a file"
    if not why and not os.access(there, os.W_OK | os.X_OK):
        why = "permission denied"
    if why:
        raise _not_writable_error(job.output.parent, why)


def _existing_parent(output: Path) -> Path:
    """The nearest of an output's folders that exists."""
    return next(folder for folder in output.absolute().parents if folder.exists())


@contextmanager
def cleanup_on_error(outputs: Sequence[Path]) -> Iterator[list[Path]]:
    """Make the outputs' folder; yields a list of what was made, which goes if something fails.

    What was there before stays.
    """
    before = {path for path in outputs if path.exists()}
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable_error(outputs[0].parent, (error.strerror or str(error)).lower()) from None
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            if path not in before:
                path.unlink(missing_ok=True)
        raise


def _not_writable_error(folder: Path, why: str) -> OutputError:
    return OutputError(f"{printable(folder)} cannot be written to ({why}): name another output folder")
