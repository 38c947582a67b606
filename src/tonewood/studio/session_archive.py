"""Session files: a recording, its model and its edit history in one zip archive.

Archives come from users, so every entry is checked before use. A few kilobytes may unpack to
gigabytes, a single number may ask for as much memory, and damaged data must not make pages fail later.
"""

import errno
import io
import math
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from tonewood.enhancement.editing import Edit, refine_rows
from tonewood.enhancement.recipe import Recipe, count_json_values, load_recipe
from tonewood.errors import AudioError, RecipeError
from tonewood.model.model_file import bundled_models
from tonewood.setting_types import Settings
from tonewood.studio.database import MAX_UNDO_STEPS, HistoryRow, RecordingInfo, StudioSession
from tonewood.studio.session_audio import BANDS_FILE, OFFSET_FILE
from tonewood.studio.session_masks import mask_path
from tonewood.studio.state import StudioState
from tonewood.studio.uploads import audio_suffix, clean_title, decode_to_session
from tonewood.utils.files import atomic_path

SESSION_SUFFIX = ".tonewood-session"
_MANIFEST_ENTRY, _MODEL_ENTRY = "session.json", "model.tonewood"
_MAX_ARCHIVE_BYTES = 4 * 2**30
_MAX_ENTRY_BYTES = 2**28  # of an entry that is read into memory at once
_MAX_MANIFEST_VALUES = 2**21  # 500 edits with 200 notes and 50 regions each
_MAX_OFFSET_BYTES = 1_000
# Limits of masks and band levels.
_MAX_CELLS_PER_S = 2**16  # 4,800 are usual
_MAX_MASK_ROWS = 4_096
_MIN_ROW_SPACING_HZ = 0.5
_MAX_FREQUENCY_HZ = 48_000.0
_MAX_BAND_POWER = 1e20
_MAX_OFFSET_DB = 600.0
_OFFSET_ADAPTER: TypeAdapter[tuple[float, float | None]] = TypeAdapter(tuple[float, float | None])
# Start of a .npy file with one or two axes, as `np.savez` writes it.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<>]f[248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,15},(?: \d{1,15})?)\), \} *\n",
    re.DOTALL,
)

# What zipfile raises for a damaged archive, and our checks for damaged content. Built-in errors are as few as
# possible, because an error of ours must not pass for a damaged file. An offset may be too large to seek to
# (OverflowError), and a name may not be UTF-8 (UnicodeDecodeError).
_DAMAGE_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OverflowError, UnicodeDecodeError,
    ValidationError, RecipeError,
)  # fmt: skip
_ENCRYPTED_FLAG = 0x1
_ENTRY_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class HistoryEntry(Settings):
    """An edit in the history of a session file."""

    number: int = Field(ge=0, le=2**53)
    mask_number: int | None = Field(ge=0, le=1_000_000, alias="found")
    edit: Edit


class SessionManifest(Settings):
    """Content of `session.json` in a session file."""

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
        numbers = [entry.number for entry in self.history]
        if numbers != list(range(first, first + len(numbers))):
            raise ValueError("the history has gaps")
        if self.at not in numbers:
            raise ValueError("the history does not contain its current edit")
        return self

    @property
    def mask_numbers(self) -> list[int]:
        """Numbers of the masks that the history uses."""
        return sorted({entry.mask_number for entry in self.history if entry.mask_number is not None})


def is_session_archive(path: Path) -> bool:
    """Return True if a file is a zip archive, as session files are."""
    return zipfile.is_zipfile(path)


def write_session_archive(studio: StudioState, session: StudioSession, path: Path) -> None:
    """Write a session file, all or nothing."""
    name = studio.current_model(session)
    manifest = SessionManifest(
        title=session.title,
        sound=session.recording,
        model=name,
        digest=studio.models.get(name).digest,
        at=studio.database.get_state(session.id).number,
        history=tuple(
            HistoryEntry(number=row.number, found=row.mask_number, edit=row.edit)
            for row in studio.database.get_history(session.id)
        ),
    )
    source = studio.models.resolve_source(name)
    model_path = bundled_models()[source] if source in bundled_models() else Path(source)
    text = manifest.model_dump_json(indent=1, by_alias=True)
    entries = {_MANIFEST_ENTRY: text.encode(), _MODEL_ENTRY: model_path.read_bytes()}
    with (
        atomic_path(path, overwrite=True) as temporary,
        zipfile.ZipFile(temporary, "w", strict_timestamps=False) as archive,
    ):
        for entry, content in entries.items():
            # Without a time: zip has none before 1980, the date of a clock without a battery.
            archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_DEFLATED)
        archive.write(session.upload_path, session.recording.upload)
        masks = [mask_path(session.folder, number) for number in manifest.mask_numbers]
        measurements = [session.folder / name for name in (BANDS_FILE, OFFSET_FILE)]
        for file in (*masks, *(path for path in measurements if path.exists())):
            archive.write(file, file.name, zipfile.ZIP_DEFLATED)


def open_session_archive(studio: StudioState, name: str, folder: Path, path: Path) -> StudioSession:
    """Add the session of a session file under the id `name`.

    Only entries with known names are extracted, under our own file names in `folder`. AudioError if the file
    is not a session file, or is damaged.
    """
    # Everything is extracted and checked before the database changes.
    try:
        with zipfile.ZipFile(path) as archive:
            if uncompressed_size(archive) > _MAX_ARCHIVE_BYTES:
                raise AudioError("the session file unpacks to more than 4 GiB: use a shorter recording")
            manifest = _read_session_manifest(archive)
            title = clean_title(manifest.title)
            upload = _extract_recording(archive, manifest, folder)
            recording, expected = decode_to_session(upload, folder, title), manifest.sound
            if (recording.samples, recording.channels, recording.rate, recording.sha256) != (
                expected.samples, expected.channels, expected.rate, expected.sha256,
            ):  # fmt: skip
                raise AudioError(
                    "the session file contains another recording than the one it describes: choose another"
                )
            _extract_analysis(archive, manifest, recording, folder)
            model_content = _read_entry(archive, _MODEL_ENTRY)
    except (*_DAMAGE_ERRORS, OSError) as error:
        # An archive whose offsets are wrong raises EINVAL; other errors come from the disk.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise AudioError(
            "the file is neither a recording nor a session file, or is damaged: choose another"
        ) from error
    # From here on the archive is valid.
    model = studio.models.import_model(model_content, manifest.model, manifest.digest)
    path.unlink()
    session = studio.database.add_session(name, title, recording, model)
    history = [HistoryRow(entry.number, entry.mask_number, entry.edit) for entry in manifest.history]
    studio.database.replace_history(name, history, manifest.at)
    return session


def _read_session_manifest(archive: zipfile.ZipFile) -> SessionManifest:
    text = _read_entry(archive, _MANIFEST_ENTRY)
    if count_json_values(text) > _MAX_MANIFEST_VALUES:
        raise zipfile.BadZipFile(f"{_MANIFEST_ENTRY} contains too many values")
    return SessionManifest.model_validate_json(text)


def _extract_recording(archive: zipfile.ZipFile, manifest: SessionManifest, folder: Path) -> Path:
    upload = folder / f"recording{audio_suffix(manifest.sound.upload)}"
    _extract_entry(archive, manifest.sound.upload, upload)
    return upload


def _extract_analysis(
    archive: zipfile.ZipFile, manifest: SessionManifest, recording: RecordingInfo, folder: Path
) -> None:
    """Extract and check masks, band levels and the error of the loudness estimate."""
    for number in manifest.mask_numbers:
        target = mask_path(folder, number)
        _check_entry_size(archive, target.name)
        _extract_entry(archive, target.name, target)
        validate_session_mask(load_recipe(target), recording)
    if BANDS_FILE in archive.namelist():
        _extract_entry(archive, BANDS_FILE, folder / BANDS_FILE)
        validate_session_bands(folder / BANDS_FILE, recording)
    if OFFSET_FILE in archive.namelist():
        content = _read_entry(archive, OFFSET_FILE)
        if len(content) > _MAX_OFFSET_BYTES:
            raise zipfile.BadZipFile(f"{OFFSET_FILE} is too large")
        (folder / OFFSET_FILE).write_bytes(content)
        validate_estimate_offset(folder / OFFSET_FILE)


def _find_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return an entry that is packed as the studio does it, else raise BadZipFile.

    For a missing entry, a password or another method, zipfile and its decompressors raise KeyError,
    RuntimeError and others, which would look like errors of ours.
    """
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise zipfile.BadZipFile(f"{name} is missing") from None
    if entry.flag_bits & _ENCRYPTED_FLAG or entry.compress_type not in _ENTRY_METHODS:
        raise zipfile.BadZipFile(f"{name} is encrypted, or compressed with another method than deflate")
    return entry


def _check_entry_size(archive: zipfile.ZipFile, name: str) -> None:
    if _find_entry(archive, name).file_size > _MAX_ENTRY_BYTES:
        raise zipfile.BadZipFile(f"{name} is too large")


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_entry_size(archive, name)
    return archive.read(name)


def _extract_entry(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with archive.open(_find_entry(archive, name)) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def uncompressed_size(archive: zipfile.ZipFile) -> int:
    """Return the unpacked size that an archive declares.

    `ZipFile.read` allocates the declared size, so an entry that declares more compressed bytes than
    the archive has raises BadZipFile.
    """
    entries = archive.infolist()
    assert archive.fp is not None
    archive_bytes = archive.fp.seek(0, io.SEEK_END)
    if any(entry.compress_size > archive_bytes for entry in entries):
        raise zipfile.BadZipFile("an entry declares more bytes than the archive has")
    return sum(entry.file_size for entry in entries)


def validate_session_mask(recipe: Recipe, recording: RecordingInfo) -> None:
    """Raise BadZipFile or RecipeError unless a mask fits its recording."""
    mask, spectrum = recipe.mask, recipe.spectrum
    hop = spectrum.hop / spectrum.rate
    axes = {"frames", "hz", "hop_seconds", "top_hz"}
    for other in recipe.others:
        _require(other.model_dump(include=axes) == mask.model_dump(include=axes))
    _require(not recipe.others or recipe.input.channels == recording.channels)
    seconds = mask.frames * mask.hop_seconds
    _require(math.isclose(mask.hop_seconds, hop) and abs(seconds - recording.seconds) < 1 + hop)
    _require(mask.rows * mask.frames <= _MAX_CELLS_PER_S * (recording.seconds + 1))
    hz = np.array(mask.hz)
    _require(2 <= len(hz) <= _MAX_MASK_ROWS and hz[0] >= 0 and max(hz[-1], mask.top_hz) <= _MAX_FREQUENCY_HZ)
    _require(bool((np.diff(hz) >= _MIN_ROW_SPACING_HZ).all()) and len(refine_rows(hz)) <= _MAX_MASK_ROWS)
    for found_mask in recipe.to_masks():
        found_mask.load()


def validate_session_bands(path: Path, recording: RecordingInfo) -> None:
    """Raise BadZipFile unless a file has valid band levels of a recording."""
    max_bytes = 4 * _MAX_CELLS_PER_S * (recording.seconds + 1)
    with zipfile.ZipFile(path) as archive:
        _require(uncompressed_size(archive) <= max_bytes)
        # No other entries: `np.load` would read one named `hz` in place of `hz.npy`.
        _require(sorted(archive.namelist()) == ["hz.npy", "power.npy"])
        power, hz = (_parse_npy(archive.read(_find_entry(archive, name))) for name in ("power.npy", "hz.npy"))
    _require(hz.ndim == 1 and power.ndim == 2 and len(hz) == len(power) and power.size > 0)
    _require(bool((hz > 0).all() and (hz <= _MAX_FREQUENCY_HZ).all() and (np.diff(hz) > 0).all()))
    _require(bool((power >= 0).all() and (power <= _MAX_BAND_POWER).all()))


def validate_estimate_offset(path: Path) -> None:
    """Raise ValidationError or BadZipFile unless a file has the offset and the peak limit of an estimate."""
    for gain_db in _OFFSET_ADAPTER.validate_json(path.read_bytes(), strict=True):
        _require(gain_db is None or abs(gain_db) <= _MAX_OFFSET_DB)


def _parse_npy(content: bytes) -> NDArray[np.float64]:
    """Return a .npy file's array of real numbers.

    numpy would read the header as a Python literal, which can fail in many ways, and trust its shape.
    """
    header = _NPY_HEADER.match(content)
    if header is None:
        raise zipfile.BadZipFile("an array of the session file is damaged")
    dtype, data = np.dtype(header["dtype"].decode()), content[header.end() :]
    shape = tuple(int(size) for size in header["shape"].split(b",") if size)
    # The length of the header follows the magic string and the version, which have eight bytes.
    _require(10 + int.from_bytes(content[8:10], "little") == header.end())
    _require(0 < math.prod(shape) * dtype.itemsize == len(data))
    return np.frombuffer(data, dtype).reshape(shape).astype(np.float64)


def _require(condition: bool) -> None:
    if not condition:
        raise zipfile.BadZipFile("the content of the session file is inconsistent")
