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
from tonewood.studio.entries import Sound
from tonewood.workflow.edit import finer

_CELLS_PER_S = 2**16  # of a mask or of its recording's levels; 4,800 are usual
_ROWS = 4_096  # of an edited mask
_LEAST_STEP_HZ = 0.5  # between two rows
_GREATEST_HZ = 48_000.0
_GREATEST_POWER = 1e20
_GREATEST_DB = 600.0
_ANCHOR: TypeAdapter[tuple[float, float | None]] = TypeAdapter(tuple[float, float | None])


def claimed(archive: zipfile.ZipFile) -> int:
    """Bytes that an archive says it unpacks to; BadZipFile if it says to hold more than it is.

    What is read at once is made room for by what the archive tells, not by what is there.
    """
    items = archive.infolist()
    assert archive.fp is not None
    held = archive.fp.seek(0, io.SEEK_END)
    if any(item.compress_size > held for item in items):
        raise zipfile.BadZipFile("a part is said to be larger than the archive")
    return sum(item.file_size for item in items)


def check_mask(recipe: Recipe, sound: Sound) -> None:
    """ValueError or RecipeError unless a found mask fits a recording."""
    told, spectrum = recipe.mask, recipe.spectrum
    hop = spectrum.hop / spectrum.rate
    seconds = told.frames * told.hop_seconds
    _hold(math.isclose(told.hop_seconds, hop) and abs(seconds - sound.seconds) < 1 + hop)
    _hold(told.rows * told.frames <= _CELLS_PER_S * (sound.seconds + 1))
    hz = np.array(told.hz)
    _hold(2 <= len(hz) <= _ROWS and hz[0] >= 0 and max(hz[-1], told.top_hz) <= _GREATEST_HZ)
    _hold(bool((np.diff(hz) >= _LEAST_STEP_HZ).all()) and len(finer(hz)) <= _ROWS)
    told.mask()


def check_bands(path: Path, sound: Sound) -> None:
    """ValueError or BadZipFile unless a recording's levels by rows are such."""
    most = 4 * _CELLS_PER_S * (sound.seconds + 1)
    with zipfile.ZipFile(path) as archive:
        _hold(claimed(archive) <= most)
        power, hz = (_array(archive.read(f"{name}.npy")) for name in ("power", "hz"))
    _hold(hz.ndim == 1 and power.ndim == 2 and len(hz) == len(power) and power.size > 0)
    _hold(bool((hz > 0).all() and (hz <= _GREATEST_HZ).all() and (np.diff(hz) > 0).all()))
    _hold(bool((power >= 0).all() and (power <= _GREATEST_POWER).all()))


def check_anchor(path: Path) -> None:
    """ValueError unless what is known of an estimate's error is a gain or two."""
    for gain in _ANCHOR.validate_json(path.read_bytes(), strict=True):
        _hold(gain is None or abs(gain) <= _GREATEST_DB)


def _array(content: bytes) -> NDArray[np.float64]:
    """A .npy file's array of real numbers; its header is not believed what it claims."""
    stream = io.BytesIO(content)
    _hold(np.lib.format.read_magic(stream) == (1, 0))
    shape, by_column, kind = np.lib.format.read_array_header_1_0(stream)
    rest = content[stream.tell() :]
    _hold(kind.kind == "f" and not by_column and math.prod(shape) * kind.itemsize == len(rest))
    return np.frombuffer(rest, kind).reshape(shape).astype(np.float64)


def _hold(condition: bool) -> None:
    if not condition:
        raise ValueError("what the session file tells does not fit together")
