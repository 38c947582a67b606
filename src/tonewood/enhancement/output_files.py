"""Plan output files, recognise finished ones, and write audio so that a failure leaves nothing behind."""

import mimetypes
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io import libsndfile, remote
from tonewood.audio_io.ffmpeg import FFMPEG_SUFFIXES, PYAV_REMEDY, is_pyav_installed
from tonewood.audio_io.libsndfile import (
    WRITABLE_SUFFIXES,
    AudioFormat,
    default_output_name,
    readable_suffixes,
)
from tonewood.audio_io.reader import AudioReader, write_recording_blocks
from tonewood.audio_io.recording import (
    LeftOutRecording,
    file_sha256,
    find_audio_files,
    find_left_out_recordings,
)
from tonewood.audio_io.remote import Location
from tonewood.enhancement.recipe import RECIPE_SUFFIX, Recipe, TransferRecord, load_recipe
from tonewood.errors import (
    AudioError,
    CallError,
    FolderError,
    MissingExtraError,
    OutputError,
    RecipeError,
    TonewoodError,
    failure_reason,
    printable,
)
from tonewood.settings import EnhanceSettings, RenderSettings
from tonewood.utils.files import append_to_name, atomic_path, check_parent, name_key, real_path

DELTA_SUFFIX = ".delta.wav"


class FileJob(NamedTuple):
    """A recording and the output to make from it, if any; each is a path or a URL."""

    input: Location
    output: Location | None = None


class FileFailure(NamedTuple):
    """A file or folder that could not be processed, and the reason."""

    input: Location
    error: TonewoodError


class FileStarted(NamedTuple):
    """Start of the work on one file; `number` counts from 1 to `total`."""

    number: int
    total: int
    input: Location


@dataclass(frozen=True)
class OutputKind:
    """Names of a command's outputs, and the test for earlier outputs among its inputs."""

    suffixes: Collection[str]  # an output that ends in one of these is a file, not a folder
    suffix_rule: str  # rest of the message about an output with the suffix of another kind of file
    # Returns the output's path below the output folder for an input's path below its folder
    name: Callable[[Path], Path]
    # Returns whether a file is an output of an earlier run into a folder
    is_earlier_output: Callable[[Path, Location], bool]

    def is_file(self, out: Location, *, single: bool) -> bool:
        """Return whether an output is a file: it has a suffix of this kind, and is not an existing folder.

        Any other output is a folder, which is made if it does not exist. CallError if `out` is an existing
        file, or has the suffix of another kind of file; of one input (`single`), any other suffix.
        """
        if isinstance(out, Path) and out.is_dir():
            return False
        # A URL has a suffix as a path has.
        suffix = Path(str(out)).suffix.lower()
        if suffix in self.suffixes:
            return True
        # A folder named by a URL may well contain a dot, as host names do.
        if (
            isinstance(out, Path)
            and (
                out.exists()
                or suffix in FFMPEG_SUFFIXES | _other_file_suffixes()
                # The "Bach" of "J. S. Bach" and the 2 of "take.2" belong to the name of a folder.
                or (single and suffix[1:].isidentifier())
            )
        ):
            raise CallError(f"{printable(out)} {self.suffix_rule}")
        return False


@lru_cache
def _other_file_suffixes() -> frozenset[str]:
    """Return suffixes that nobody gives a folder."""
    # An instance of its own has the same table on every machine; the module reads that of the system.
    return frozenset(mimetypes.MimeTypes().types_map[True])


def sidecar_path(output: Path, suffix: str = RECIPE_SUFFIX) -> Path:
    """Return the path of a file that belongs to an output: its recipe, its picture or its delta."""
    return append_to_name(output, suffix)


def _is_enhanced_file(path: Path, out: Location) -> bool:
    # The delta of an output belongs to it. Resolved, because the folder may be reached through a link.
    recipe = sidecar_path(path.with_name(path.name.removesuffix(DELTA_SUFFIX)))
    return isinstance(out, Path) and recipe.exists() and real_path(path).is_relative_to(real_path(out))


AUDIO_OUTPUTS = OutputKind(
    suffixes=WRITABLE_SUFFIXES,
    suffix_rule=f"is not an audio file that can be written ({' '.join(sorted(WRITABLE_SUFFIXES))}): "
    "name one of these, or a folder without a suffix",
    name=default_output_name,
    is_earlier_output=_is_enhanced_file,
)


def plan_jobs(
    inputs: Sequence[Location], out: Location, kind: OutputKind = AUDIO_OUTPUTS
) -> list[FileJob | FileFailure]:
    """Plan which recording becomes which file; folders keep their tree.

    `out` is a file if there is one input file and `out` has a suffix of that kind, else a folder.
    Earlier outputs below an input folder are skipped. A folder without audio, or a recording that
    would overwrite an input or become the file of another, is a `FileFailure` in its place.

    CallError if `out` is a file and a folder is needed.
    """
    single = len(inputs) == 1 and not _is_folder(inputs[0])
    if kind.is_file(out, single=single):
        if single:
            return _without_conflicts([FileJob(inputs[0], out)])
        raise CallError(f"{printable(out)} is a file; several outputs need a folder: name a folder")
    planned: dict[Location, FileJob | FileFailure] = {}
    for location in inputs:
        for job in _plan_input(location, out, kind):
            output = job.output if isinstance(job, FileJob) else None
            # An input that is named twice is planned once.
            other = planned.setdefault(_output_key(output or job.input), job)
            if _resolved(other.input) != _resolved(job.input):
                planned[job.input] = FileFailure(job.input, _same_output_error(job, other))
    return _without_conflicts(planned.values())


def _output_key(location: Location) -> Location:
    # File systems that ignore case or the form of accents make one file of such names.
    return str(location) if isinstance(location, str) else Path(name_key(str(location)))


def _same_output_error(job: FileJob | FileFailure, other: FileJob | FileFailure) -> OutputError:
    assert isinstance(job, FileJob)
    return OutputError(
        f"{printable(job.input)} would become {printable(job.output or job.input)}, as "
        f"{printable(other.input)} does: use another output folder"
    )


def _plan_input(location: Location, out: Location, kind: OutputKind) -> Iterator[FileJob | FileFailure]:
    for item in expand_input(location, lambda path: kind.is_earlier_output(path, out)):
        if isinstance(item, FileFailure):
            yield item
        else:
            yield FileJob(item.location, remote.join_location(out, str(kind.name(item.relative))))


class InputRecording(NamedTuple):
    """A recording and its path below the input that contains it."""

    location: Location
    relative: Path


def expand_input(
    location: Location, is_excluded: Callable[[Path], bool] = lambda _: False
) -> list[InputRecording | FileFailure]:
    """Return every recording of an input: a file itself, a folder's files at any depth.

    An input that cannot be listed, or has no audio, gives one `FileFailure`. CallError or MissingExtraError
    if the URL's kind is not known, or needs a package that is not installed.
    """
    try:
        if isinstance(location, Path):
            return [*_expand_path(location, is_excluded)]
        return [*_expand_url(location)]
    except (CallError, MissingExtraError):  # a wrong call, not a bad input
        raise
    except TonewoodError as error:
        return [FileFailure(location, error)]
    except OSError as error:  # the name is too long, or a folder is not accessible
        return [FileFailure(location, libsndfile.read_error(Path(location), error))]


def find_left_out(location: Location) -> list[LeftOutRecording]:
    """Return the recordings of an input folder that `expand_input` leaves out, with the reason."""
    if isinstance(location, Path):
        return find_left_out_recordings(location) if location.is_dir() else []
    if is_pyav_installed():
        return []
    with suppress(TonewoodError):  # reported as a failure of the input
        if remote.is_url_folder(location):
            urls = remote.list_url_files(location)
            needs_pyav = [url for url in urls if Path(url).suffix.lower() in FFMPEG_SUFFIXES]
            return [LeftOutRecording(url, f"needs {PYAV_REMEDY}") for url in needs_pyav]
    return []


def _expand_path(path: Path, is_excluded: Callable[[Path], bool]) -> list[InputRecording]:
    if not path.is_dir():
        return [InputRecording(path, Path(path.name))]
    inside = [file for file in find_audio_files(path) if not is_excluded(file)]
    if not inside:
        raise FolderError(f"{printable(path)} contains only earlier outputs: name another input")
    return [InputRecording(file, file.relative_to(path)) for file in inside]


def _expand_url(url: str) -> list[InputRecording]:
    if not remote.is_url_folder(url):
        return [InputRecording(url, Path(remote.url_name(url)))]
    files = remote.list_url_files(url)
    # A recipe beside a file shows that it is an output of an earlier run.
    outputs = {file.removesuffix(RECIPE_SUFFIX) for file in files if file.endswith(RECIPE_SUFFIX)}
    inside = [file for file in files if Path(file).suffix.lower() in readable_suffixes()]
    inside = [file for file in inside if file.removesuffix(DELTA_SUFFIX) not in outputs]
    if not inside:
        raise FolderError(f"there is no audio file below {printable(url)}: name another input")
    return [InputRecording(file, Path(file.removeprefix(url).lstrip("/"))) for file in inside]


def _is_folder(location: Location) -> bool:
    if isinstance(location, Path):
        return os.path.isdir(location)  # noqa: PTH112 - `Path.is_dir` raises an error for a long name
    try:
        return remote.is_url_folder(location)
    except AudioError:  # cannot be reached: fails as a file, by name
        return False


def _resolved(location: Location) -> Location:
    return real_path(location) if isinstance(location, Path) else location


def _without_conflicts(jobs: Iterable[FileJob | FileFailure]) -> list[FileJob | FileFailure]:
    """Replace jobs that would overwrite an input by failures."""
    jobs = list(jobs)
    # Resolved, because a link to an input would overwrite it as well.
    inputs = {_resolved(job.input) for job in jobs if isinstance(job, FileJob)}
    return [
        FileFailure(job.input, overwrites_input_error(job.input, job.output))
        if isinstance(job, FileJob) and job.output and _resolved(job.output) in inputs
        else job
        for job in jobs
    ]


def overwrites_input_error(source: Location, output: Location) -> OutputError:
    """Return the error for an output that is an input."""
    which = "the input itself" if _resolved(source) == _resolved(output) else "an input too"
    return OutputError(f"{printable(output)} is {which}: name another output")


@dataclass(frozen=True)
class OutputKey:
    """Everything an output depends on; two equal keys give the same bytes."""

    input_sha256: str
    model: str
    settings: EnhanceSettings
    carried: TransferRecord | None = None

    def matches(self, recipe: Recipe) -> bool:
        """Return whether a recipe's output has this key."""
        return self == OutputKey(recipe.input.sha256, recipe.model.digest, recipe.settings, recipe.carried)

    def find_finished(self, output: Path, extras: Sequence[Path]) -> Recipe | None:
        """Return the recipe of an earlier run's output if output, recipe and extra files are complete."""
        recipe = self._matching_recipe(output)
        if recipe is None or not output.exists():
            return None
        # An output that was edited or cut off later has another hash.
        complete = recipe.output_sha256 == file_sha256(output)
        return recipe if complete and all(path.exists() for path in extras) else None

    def is_unfinished(self, output: Path) -> bool:
        """Return whether a recipe with this key exists without its audio.

        A run that was killed left it, or a concurrent run is about to publish the audio. It stays
        until an equal recipe replaces it.
        """
        return self._matching_recipe(output) is not None and not output.exists()

    def _matching_recipe(self, output: Path) -> Recipe | None:
        try:
            recipe = load_recipe(sidecar_path(output))
        except RecipeError:  # none, or a damaged one
            return None
        return recipe if self.matches(recipe) else None


def write_output_audio(
    source: Path,
    output: Path,
    reader: AudioReader,
    blocks: Iterable[NDArray[np.float32]],
    n_samples: int,
    settings: RenderSettings,
    *,
    overwrite: bool,
    before_publish: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write the audio made from a recording, in its own format or the one the output's suffix names.

    Parameters
    ----------
    blocks : iterable of float32 array (channels, samples)
    n_samples : int
        Samples of each channel in all blocks.
    before_publish : callable
        Called with the complete temporary file, before it takes its final name.
    """
    audio_format = AudioFormat.for_path(output, reader.format)
    if settings.amount == 0 and audio_format == reader.format:
        # A copy is exact even where float32 is not, as in 32-bit integers and mp3.
        with atomic_path(output, overwrite) as temporary:
            try:
                shutil.copyfile(source, temporary)
            except FileNotFoundError as error:
                raise _missing_input_error(source) from error
            before_publish(temporary)
        return
    write_recording_blocks(
        output,
        blocks,
        (reader.channels, n_samples),
        reader.rate,
        audio_format,
        overwrite=overwrite,
        before_publish=before_publish,
        tags_from=source,
    )


def check_outputs(source: Path, outputs: Sequence[Path], overwrite: bool) -> None:
    """Check before the work that the outputs can be written after it.

    AudioError if the input does not exist. OutputError if an output exists or is a folder, or the first
    output's folder cannot be written to.
    """
    try:
        source.stat()
    except OSError as error:
        raise libsndfile.read_error(source, error) from error
    for path in outputs:
        if path.is_dir():
            raise OutputError(f"{printable(path)} is a folder, not a file: name another output")
        if path.exists() and not path.is_file():
            raise OutputError(f"{printable(path)} is not a regular file: name another output")
        if path.exists() and not overwrite:
            raise OutputError(f"{printable(path)} exists: name another output or pass --overwrite")
    check_parent(outputs[0])


@contextmanager
def cleanup_on_error(outputs: Sequence[Path]) -> Iterator[list[Path]]:
    """Make the outputs' folder, and remove what was written if the block fails.

    Yields a list: append each path once it is written. Files that existed before are kept.
    """
    # Another run may write the same outputs: its files must survive the failure of this one.
    existing = {path for path in outputs if path.exists()}
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable_error(outputs[0].parent, failure_reason(error)) from None
    written: list[Path] = []
    try:
        yield written
    except BaseException:  # an interrupt too must leave no partial output
        for path in written:
            if path not in existing:
                path.unlink(missing_ok=True)
        raise


def _missing_input_error(source: Path) -> AudioError:
    return AudioError(f"{printable(source)} does not exist: check its name")


def _not_writable_error(folder: Path, reason: str) -> OutputError:
    return OutputError(f"{printable(folder)} cannot be written to ({reason}): name another output folder")
