"""The recipe beside an output: all that is needed to render it again, exactly.

How much a JSON text may grow when it is read.
"""

import base64
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from tonewood.dsp.chunking import LazyTimeSeries, read_segments
from tonewood.errors import RecipeError, printable
from tonewood.mask.certificate import Certificate, Change
from tonewood.mask.mask import QUANTIZATION_STEP_DB, Mask
from tonewood.settings import EnhanceSettings, Settings, SpectrumSettings
from tonewood.utils.atomic_write import atomic_path


def count_json_values(text: bytes) -> int:
    """Most values that a JSON text can hold, by its commas and brackets.

    A megabyte of `[0,0,0` becomes a hundred when it is parsed; this costs no memory.
    """
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


RECIPE_SUFFIX = ".recipe.json"
_RECIPE_PART_FRAMES = 6_000
_MAX_RECIPE_CELLS = 2**28
_MAX_RECIPE_VALUES = 2**18  # in the JSON; a day's mask has 1,440 parts


class InputRecord(Settings):
    """The recording that was enhanced."""

    name: str
    sha256: str
    rate: int
    channels: int
    samples: int


class ModelRecord(Settings):
    """The model that was used."""

    name: str
    digest: str


class MaskRecord(Settings):
    """The mask grid in steps of a `Mask`, 0.002 dB, in parts of a minute.

    A part is its second differences over time, modulo 2¹⁶: small where a mask moves smoothly.
    Signs are folded in (zigzag), all low bytes stand before all high ones, zlib, base64.
    """

    rows: int
    frames: int
    hz: tuple[float, ...]
    hop_seconds: float
    top_hz: float
    parts: tuple[str, ...]

    @classmethod
    def from_mask(cls, mask: Mask) -> "MaskRecord":
        """Record a mask; exact for one that is `quantize`."""
        return cls.without_parts(mask).model_copy(update={"parts": tuple(pack_mask_parts(mask))})

    @classmethod
    def without_parts(cls, mask: Mask) -> "MaskRecord":
        """All but the parts, which for hours of sound are better written one by one."""
        return cls(
            rows=len(mask.hz),
            frames=mask.frames,
            hz=tuple(mask.hz.tolist()),
            hop_seconds=mask.hop_seconds,
            top_hz=mask.top_hz,
            parts=(),
        )

    def to_mask(self) -> Mask:
        """Return the recorded mask, unpacked when it is read; RecipeError if the record contradicts itself."""
        rising = all(0 <= a < b for a, b in pairwise(self.hz))
        shaped = min(self.rows, self.frames) > 0 and len(self.hz) == self.rows
        parted = len(self.parts) == -(-self.frames // _RECIPE_PART_FRAMES)
        placed = rising and self.hop_seconds > 0 and self.top_hz > 0
        if not (shaped and parted and placed and self.rows * self.frames <= _MAX_RECIPE_CELLS):
            raise RecipeError("the recipe's mask grid contradicts itself: make the recipe again")
        gain = LazyTimeSeries(self.frames, self._unpack_gain_db)
        return Mask(gain, np.array(self.hz), self.hop_seconds, self.top_hz)

    def _unpack_gain_db(self, first: int, last: int) -> Tensor:
        last = min(last, self.frames)
        begin = first // _RECIPE_PART_FRAMES
        found = [
            _unpack_cells(
                self.parts[k],
                self.rows,
                min(_RECIPE_PART_FRAMES, self.frames - k * _RECIPE_PART_FRAMES),
            )
            for k in range(begin, -(-last // _RECIPE_PART_FRAMES))
        ]
        cells = np.concatenate(found, axis=1)
        at = first - begin * _RECIPE_PART_FRAMES
        gain = cells[:, at : at + last - first].astype(np.float32) * np.float32(QUANTIZATION_STEP_DB)
        return torch.from_numpy(gain)


def pack_mask_parts(mask: Mask) -> Iterator[str]:
    """Parts of a mask as a `MaskRecord` has them, one after the other."""
    for part in read_segments(mask.gains, _RECIPE_PART_FRAMES):
        yield _pack_cells(np.round(part.numpy() / QUANTIZATION_STEP_DB).astype(np.int16))


def _pack_cells(cells: NDArray[np.int16]) -> str:
    change = np.diff(cells, n=2, axis=1, prepend=np.zeros((len(cells), 2), np.int16))
    folded = ((change << 1) ^ (change >> 15)).astype("<u2")
    low_high = folded.view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(low_high.tobytes())).decode()


def _unpack_cells(part: str, rows: int, frames: int) -> NDArray[np.int16]:
    size = rows * frames * 2
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(part, validate=True), size + 1)
    except (ValueError, zlib.error):
        content = b""
    if len(content) != size:
        raise RecipeError("the recipe's mask grid is damaged: make the recipe again")
    low_high = np.frombuffer(content, np.uint8).reshape(2, -1)
    folded = np.ascontiguousarray(low_high.T).view("<u2").reshape(rows, frames)
    change = ((folded >> 1) ^ -(folded & 1)).astype(np.int16)
    return np.cumsum(np.cumsum(change, axis=1, dtype=np.int16), axis=1, dtype=np.int16)


class TransferRecord(Settings):
    """The recipe whose correction was carried to another recording, and how its mask moves.

    `varying` is `none` for the static part alone, `same` for the very same mask, else the prior
    that found what varies.
    """

    recipe: str
    sha256: str
    varying: str


class Recipe(Settings):
    """Everything that decided an output, and what came of it."""

    format: Literal["tonewood-recipe"] = "tonewood-recipe"
    version: Literal[2] = 2
    tonewood: str
    input: InputRecord
    model: ModelRecord
    settings: EnhanceSettings
    prior: str
    steps: int
    gain_db: float
    certificate: Certificate
    loudness_lufs: Change | None
    mask: MaskRecord
    spectrum: SpectrumSettings
    carried: TransferRecord | None = None
    output_sha256: str | None = None

    def save(self, path: Path, *, overwrite: bool = False, mask: Mask | None = None) -> None:
        """Write the recipe, whole or not at all.

        Parameters
        ----------
        mask : Mask, optional
            Whose parts are written if the recipe has its outline alone.
        """
        bare = self.model_copy(update={"mask": self.mask.model_copy(update={"parts": ()})})
        head, tail = bare.model_dump_json(indent=1).split('"parts": []')
        with (
            atomic_path(path, overwrite) as temporary,
            temporary.open("w", encoding="utf-8") as out,
        ):
            # A long mask is most of it by far, and needs no escaping: copied, not dumped.
            out.write(head + '"parts": [')
            for number, part in enumerate(self.mask.parts if mask is None else pack_mask_parts(mask)):
                out.write(f'{"," if number else ""}\n   "{part}"')
            out.write("\n  ]" + tail + "\n")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; RecipeError if it is none."""
    try:
        return parse_recipe(path.read_bytes(), path)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RecipeError(f"{printable(path)} cannot be read ({why}): check the file") from None


def parse_recipe(content: bytes, path: str | Path) -> Recipe:
    """A recipe that was read from a path; RecipeError if it is none."""
    if count_json_values(content) > _MAX_RECIPE_VALUES:
        raise RecipeError(f"{printable(path)} is not a Tonewood recipe, or is damaged")
    try:
        return Recipe.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise RecipeError(
                f"{printable(path)} has version {first['input']}; this Tonewood reads 2: "
                "update Tonewood or make the recipe again"
            ) from None
        raise RecipeError(f"{printable(path)} is not a Tonewood recipe, or is damaged") from None
