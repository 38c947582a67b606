"""What a session file brings besides sound and model, looked at before it is believed.

A damaged or made-up one must not make pages fail later, nor take memory without end: a few
kilobytes of a zip archive may unpack to gigabytes, and one number may stand for as much.
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tonewood.files.recipe import Recipe
from tonewood.studio.entries import RecordingInfo
from tonewood.workflow.edit import refine_rows

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
    told.to_mask()


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
