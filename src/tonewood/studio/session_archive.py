"""A session as one file, which reopens exactly: the recording, the model, all that was decided.

What a session file brings besides sound and model, looked at before it is believed.

A damaged or made-up one must not make pages fail later, nor take memory without end: a few
kilobytes of a zip archive may unpack to gigabytes, and one number may stand for as much.
"""

import errno
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, model_validator

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES
from tonewood.enhancement import recipe
from tonewood.enhancement.editing import Edit, refine_rows
from tonewood.enhancement.recipe import Recipe, count_json_values
from tonewood.errors import AudioError, RecipeError
from tonewood.model.model_file import bundled_models
from tonewood.settings import Settings
from tonewood.studio.database import MAX_UNDO_STEPS, RecordingInfo, StudioSession
from tonewood.studio.session_audio import mask_path
from tonewood.studio.state import StudioState
from tonewood.studio.uploads import clean_title, decode_to_session
from tonewood.utils.atomic_write import atomic_path

_MAX_CELLS_PER_S = 2**16  # of a mask or of its recording's levels; 4,800 are usual
_MAX_MASK_ROWS = 4_096  # of an edited mask
_MIN_ROW_SPACING_HZ = 0.5  # between two rows
_MAX_FREQUENCY_HZ = 48_000.0
_MAX_BAND_POWER = 1e20
_MAX_OFFSET_DB = 600.0
_OFFSET_ADAPTER: TypeAdapter[tuple[float, float | None]] = TypeAdapter(tuple[float, float | None])


def uncompressed_size(archive: zipfile.ZipFile) -> int:
    """Bytes that an archive says it unpacks to; BadZipFile if it says to hold more than it is.

    What is read at once is made room for by what the archive tells, not by what is there.
    """
    items = archive.infolist()
    assert archive.fp is not None
    held = archive.fp.seek(0, io.SEEK_END)
    if any(item.compress_size > held for item in items):
        raise zipfile.BadZipFile("a part is said to be larger than the archive")
    return sum(item.file_size for item in items)


def validate_session_mask(recipe: Recipe, recording: RecordingInfo) -> None:
    """ValueError or RecipeError unless a found mask fits a recording."""
    told, spectrum = recipe.mask, recipe.spectrum
    hop = spectrum.hop / spectrum.rate
    seconds = told.frames * told.hop_seconds
    _require(math.isclose(told.hop_seconds, hop) and abs(seconds - recording.seconds) < 1 + hop)
    _require(told.rows * told.frames <= _MAX_CELLS_PER_S * (recording.seconds + 1))
    hz = np.array(told.hz)
    _require(2 <= len(hz) <= _MAX_MASK_ROWS and hz[0] >= 0 and max(hz[-1], told.top_hz) <= _MAX_FREQUENCY_HZ)
    _require(bool((np.diff(hz) >= _MIN_ROW_SPACING_HZ).all()) and len(refine_rows(hz)) <= _MAX_MASK_ROWS)
    told.to_mask().load()


def validate_session_bands(path: Path, recording: RecordingInfo) -> None:
    """ValueError or BadZipFile unless a recording's levels by rows are such."""
    most = 4 * _MAX_CELLS_PER_S * (recording.seconds + 1)
    with zipfile.ZipFile(path) as archive:
        _require(uncompressed_size(archive) <= most)
        power, hz = (_parse_npy(archive.read(f"{name}.npy")) for name in ("power", "hz"))
    _require(hz.ndim == 1 and power.ndim == 2 and len(hz) == len(power) and power.size > 0)
    _require(bool((hz > 0).all() and (hz <= _MAX_FREQUENCY_HZ).all() and (np.diff(hz) > 0).all()))
    _require(bool((power >= 0).all() and (power <= _MAX_BAND_POWER).all()))


def validate_estimate_offset(path: Path) -> None:
    """ValueError unless what is known of an estimate's error is a gain or two."""
    for gain in _OFFSET_ADAPTER.validate_json(path.read_bytes(), strict=True):
        _require(gain is None or abs(gain) <= _MAX_OFFSET_DB)


def _parse_npy(content: bytes) -> NDArray[np.float64]:
    """A .npy file's array of real numbers; its header is not believed what it claims."""
    stream = io.BytesIO(content)
    _require(np.lib.format.read_magic(stream) == (1, 0))
    shape, by_column, kind = np.lib.format.read_array_header_1_0(stream)
    rest = content[stream.tell() :]
    _require(kind.kind == "f" and not by_column and math.prod(shape) * kind.itemsize == len(rest))
    return np.frombuffer(rest, kind).reshape(shape).astype(np.float64)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("what the session file tells does not fit together")


SESSION_SUFFIX = ".tonewood-session"
_MAX_ARCHIVE_BYTES = 4 * 2**30
_MODEL_ENTRY, _MAX_ENTRY_BYTES = "model.tonewood", 2**28
_MAX_MANIFEST_VALUES = 2**21  # in the manifest: 500 edits of 200 notes and 50 areas each
BANDS_FILE, OFFSET_FILE = "bands.npz", "anchor.json"
_MAX_OFFSET_BYTES = 1_000

# What a damaged archive, or what is in it, ends in.
_DAMAGE_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError,
    RuntimeError, RecipeError,
)  # fmt: skip


class HistoryEntry(Settings):
    """An edit in a session file's history."""

    number: int = Field(ge=0, le=2**53)
    found: int | None = Field(ge=0, le=1_000_000)
    edit: Edit


class SessionManifest(Settings):
    """What a session file says of itself."""

    format: Literal["tonewood-session"] = "tonewood-session"
    version: Literal[1] = 1
    title: str
    sound: RecordingInfo
    model: str
    digest: str
    at: int
    history: tuple[HistoryEntry, ...] = Field(min_length=1, max_length=MAX_UNDO_STEPS + 1)

    @model_validator(mode="after")
    def _check_history(self) -> Self:
        first = self.history[0].number
        if [it.number for it in self.history] != list(range(first, first + len(self.history))):
            raise ValueError("the history has gaps")
        if not 0 <= self.at - first < len(self.history):
            raise ValueError("the history does not hold where it stands")
        return self


def is_session_archive(path: Path) -> bool:
    """Whether a file is a zip archive, as session files are."""
    return zipfile.is_zipfile(path)


def write_session_archive(desk: StudioState, session: StudioSession, path: Path) -> None:
    """Write a session file, whole or not at all."""
    history = desk.database.get_history(session.id)
    name = desk.current_model(session)
    model = desk.models.get(name)
    manifest = SessionManifest(
        title=session.title,
        sound=session.recording,
        model=name,
        digest=model.digest,
        at=desk.database.get_state(session.id).number,
        history=tuple(HistoryEntry(number=n, found=f, edit=e) for n, f, e in history),
    )
    source = desk.models.resolve_source(name)
    content = bundled_models()[source] if source in bundled_models() else Path(source)
    with (
        atomic_path(path, overwrite=True) as temporary,
        zipfile.ZipFile(temporary, "w", strict_timestamps=False) as archive,
    ):
        for entry, told in (("session.json", manifest.model_dump_json(indent=1)),
                            (_MODEL_ENTRY, content.read_bytes())):  # fmt: skip
            # Without a time: zip knows none before 1980, where a clock that lost its battery is.
            archive.writestr(zipfile.ZipInfo(entry), told, zipfile.ZIP_DEFLATED)
        archive.write(session.upload_path, session.recording.upload)
        for number in sorted({found for _, found, _ in history if found is not None}):
            found = mask_path(session.folder, number)
            archive.write(found, found.name, zipfile.ZIP_DEFLATED)
        for kept in (BANDS_FILE, OFFSET_FILE):
            if (session.folder / kept).exists():
                archive.write(session.folder / kept, kept, zipfile.ZIP_DEFLATED)


def open_session_archive(desk: StudioState, name: str, folder: Path, path: Path) -> StudioSession:
    """Enter a session file as the session `name`, in its folder.

    Only names that a session file has are taken from it, and put where ours go.

    Raises
    ------
    AudioError
        It is no session file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if uncompressed_size(archive) > _MAX_ARCHIVE_BYTES:
                raise AudioError("the session file unpacks to more than 4 GiB: it is refused")
            manifest = _read_session_manifest(archive)
            title = clean_title(manifest.title)
            upload = _extract_recording(archive, manifest, folder)
            sound = decode_to_session(upload, folder, title)
            told = manifest.sound
            if (sound.samples, sound.channels, sound.rate, sound.sha256) != (
                told.samples, told.channels, told.rate, told.sha256,
            ):  # fmt: skip
                raise AudioError("the session file's recording is not the one it was made with")
            _extract_analysis(archive, manifest, sound, folder)
            content = _read_entry(archive, _MODEL_ENTRY)
    except (*_DAMAGE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's own trouble; a place before the beginning is the archive's
        raise AudioError(
            "this is neither a recording nor a session file that can be read: choose another"
        ) from error
    model = desk.models.import_model(content, manifest.model, manifest.digest)
    path.unlink()
    session = desk.database.add_session(name, title, sound, model)
    history = [(entry.number, entry.found, entry.edit) for entry in manifest.history]
    desk.database.replace_history(name, history, manifest.at)
    return session


def _read_session_manifest(archive: zipfile.ZipFile) -> SessionManifest:
    text = _read_entry(archive, "session.json")
    if count_json_values(text) > _MAX_MANIFEST_VALUES:
        raise zipfile.BadZipFile("session.json holds too much")
    return SessionManifest.model_validate_json(text)


def _extract_recording(archive: zipfile.ZipFile, manifest: SessionManifest, folder: Path) -> Path:
    """Put the recording where ours go; its path."""
    suffix = Path(manifest.sound.upload).suffix.lower()
    upload = folder / f"recording{suffix if suffix in WRITABLE_SUFFIXES else ''}"
    _extract_entry(archive, manifest.sound.upload, upload)
    return upload


def _extract_analysis(
    archive: zipfile.ZipFile, manifest: SessionManifest, sound: RecordingInfo, folder: Path
) -> None:
    """Put found masks and what else is known of a recording where ours go, once it is checked."""
    for number in sorted({e.found for e in manifest.history if e.found is not None}):
        target = mask_path(folder, number)
        _check_entry_size(archive, target.name)
        _extract_entry(archive, target.name, target)
        validate_session_mask(recipe.load_recipe(target), sound)
    if BANDS_FILE in archive.namelist():
        _extract_entry(archive, BANDS_FILE, folder / BANDS_FILE)
        validate_session_bands(folder / BANDS_FILE, sound)
    if OFFSET_FILE in archive.namelist():
        anchor = _read_entry(archive, OFFSET_FILE)
        if len(anchor) > _MAX_OFFSET_BYTES:
            raise zipfile.BadZipFile(f"{OFFSET_FILE} is too large")
        (folder / OFFSET_FILE).write_bytes(anchor)
        validate_estimate_offset(folder / OFFSET_FILE)


def _check_entry_size(archive: zipfile.ZipFile, name: str) -> None:
    """BadZipFile where what is read into memory at once claims more than that may be."""
    if archive.getinfo(name).file_size > _MAX_ENTRY_BYTES:
        raise zipfile.BadZipFile(f"{name} is too large")


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_entry_size(archive, name)
    return archive.read(name)


def _extract_entry(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(name) as source, target.open("wb") as sink:
        while piece := source.read(1 << 20):
            sink.write(piece)
