"""Which recording becomes which file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tonewood.errors import CallError, FolderError, OutputError, TonewoodError, shown
from tonewood.files import recipe as recipes
from tonewood.files.audio import audio_files
from tonewood.files.formats import SUFFIXES, output_name
from tonewood.files.places import Place


class Job(NamedTuple):
    """One recording and the file it becomes."""

    input: Path
    output: Path


class Failed(NamedTuple):
    """A file could not be done; the others go on."""

    input: Place
    error: TonewoodError


def recordings(inputs: Sequence[Path]) -> Iterator[Path | Failed]:
    """Every recording that the inputs name: files as they are, folders with all below them.

    A folder without audio is a `Failed` in its place.
    """
    for item in inputs:
        try:
            yield from audio_files(item) if item.is_dir() else [item]
        except FolderError as error:
            yield Failed(item, error)


def jobs(inputs: Sequence[Path], out: Path) -> list[Job | Failed]:
    """Lay out which recording becomes which file; folders keep their tree.

    `out` is a file when there is one input file and `out` is named like one; else a folder. What
    lies below `out` with a recipe beside it is an earlier output, and no input. A folder without
    audio is a `Failed` in its place.

    Raises
    ------
    CallError
        Two recordings would become one file, or `out` is a file where a folder is needed.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not out.is_dir() and out.suffix.lower() in SUFFIXES:
        return [Job(inputs[0], out)]
    if not out.is_dir() and (out.exists() or (not single and out.suffix.lower() in SUFFIXES)):
        raise CallError(f"{shown(out)} names a file; several outputs need a folder: name one")
    if single and out.suffix and not out.is_dir():
        raise CallError(
            f"{shown(out)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    laid: list[Job | Failed] = []
    taken: dict[Path, Path] = {}
    for job in _laid(inputs, out):
        if isinstance(job, Job):
            other = taken.get(job.output)
            if other and same(other, job.input):
                continue  # named twice
            if other:
                raise CallError(
                    f"{shown(other)} and {shown(job.input)} would both become "
                    f"{shown(job.output)}: enhance them into two folders"
                )
            taken[job.output] = job.input
        laid.append(job)
    return laid


def _laid(inputs: Sequence[Path], out: Path) -> Iterator[Job | Failed]:
    for item in inputs:
        if not item.is_dir():
            yield Job(item, out / output_name(Path(item.name)))
            continue
        try:
            inside = [path for path in audio_files(item) if not _is_output(path, out)]
        except FolderError as error:
            yield Failed(item, error)
            continue
        if not inside:
            yield Failed(
                item,
                FolderError(f"{shown(item)} holds nothing but earlier outputs: name another input"),
            )
        for path in inside:
            yield Job(path, out / output_name(path.relative_to(item)))


def _is_output(path: Path, out: Path) -> bool:
    return beside(path).exists() and path.resolve().is_relative_to(out.resolve())


def beside(output: Path, suffix: str = recipes.SUFFIX) -> Path:
    """Name of a file that belongs to an output: its recipe, or its picture."""
    return output.with_name(output.name + suffix)


def same(a: Path, b: Path) -> bool:
    """Whether two paths are one file."""
    return a.resolve() == b.resolve()


def refused(job: Job, inputs: set[Path]) -> OutputError | None:
    """Why a recording may not become that file, of all resolved `inputs`; None if it may."""
    if job.output.resolve() not in inputs:
        return None
    if same(*job):
        return onto_itself(job.output)
    return OutputError(f"{shown(job.output)} is an input too: name another output")


def onto_itself(output: Place) -> OutputError:
    """Why a recording may not become itself."""
    return OutputError(f"{shown(output)} is the input itself: name another output")
