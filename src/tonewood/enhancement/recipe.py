"""Recipe of an output: a JSON file with everything that is needed to render it again, bit by bit."""

import base64
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from tonewood.dsp.chunking import LazyTimeSeries, read_segments
from tonewood.errors import RecipeError, failure_reason, printable
from tonewood.mask.certificate import Certificate, Change
from tonewood.mask.components import count_components
from tonewood.mask.mask import QUANTIZATION_STEP_DB, Mask
from tonewood.setting_types import Settings
from tonewood.settings import EnhanceSettings, SpectrumSettings
from tonewood.utils.arrays import Levels
from tonewood.utils.files import atomic_path, read_regular
from tonewood.utils.parallel import parallel_map

RECIPE_SUFFIX = ".recipe.json"
_RECIPE_PART_FRAMES = 6_000  # one minute
_MAX_RECIPE_CELLS = 2**28  # of a mask: 15 hours at 48 rows; limits memory for damaged files
_MAX_RECIPE_VALUES = 2**18  # in the JSON; the mask of a day has 1,440 parts


class InputRecord(Settings):
    """Recording that was enhanced."""

    # Escaped characters make a name of 255 bytes longer.
    name: str = Field(max_length=2_600)
    sha256: str
    rate: int = Field(ge=1, le=1_000_000)
    channels: int = Field(ge=1, le=1_000)
    samples: int = Field(ge=1, le=2**53)


class ModelRecord(Settings):
    """Model that was used."""

    name: str
    digest: str


class MaskRecord(Settings):
    """Mask gains in steps of `QUANTIZATION_STEP_DB`, in parts of one minute.

    Each part is coded as second differences over time modulo 2¹⁶, which are small because masks are
    smooth; zigzag coding of the sign; all low bytes before all high bytes; zlib; base64.
    """

    rows: int
    frames: int
    hz: tuple[float, ...]
    hop_seconds: float
    top_hz: float
    parts: tuple[str, ...]

    @classmethod
    def from_mask(cls, mask: Mask) -> "MaskRecord":
        """Record a mask; exact if it is quantized."""
        return cls.without_parts(mask).model_copy(update={"parts": tuple(pack_mask_parts(mask))})

    @classmethod
    def without_parts(cls, mask: Mask) -> "MaskRecord":
        """Record a mask without its gains, which for long audio are written part by part."""
        return cls(
            rows=len(mask.hz),
            frames=mask.frames,
            hz=tuple(mask.hz.tolist()),
            hop_seconds=mask.hop_seconds,
            top_hz=mask.top_hz,
            parts=(),
        )

    def to_mask(self) -> Mask:
        """Return the mask, unpacked lazily; RecipeError if the record is inconsistent."""
        # Recipes may come from anyone: all that arrays are sized by is checked before it is used.
        rising = all(0 <= a < b for a, b in pairwise(self.hz))
        has_shape = min(self.rows, self.frames) > 0 and len(self.hz) == self.rows
        has_parts = len(self.parts) == -(-self.frames // _RECIPE_PART_FRAMES)
        has_axes = rising and self.hop_seconds > 0 and self.top_hz > 0
        if not (has_shape and has_parts and has_axes and self.rows * self.frames <= _MAX_RECIPE_CELLS):
            raise RecipeError("the recipe's mask is inconsistent: make the recipe again")
        gain = LazyTimeSeries(self.frames, self._unpack_gain_db)
        return Mask(gain, np.array(self.hz), self.hop_seconds, self.top_hz)

    def _unpack_gain_db(self, first: int, last: int) -> Levels:
        # Only the parts that overlap the frames are unpacked.
        last = min(last, self.frames)
        first_part = first // _RECIPE_PART_FRAMES
        parts = [
            _unpack_cells(
                self.parts[k], self.rows, min(_RECIPE_PART_FRAMES, self.frames - k * _RECIPE_PART_FRAMES)
            )
            for k in range(first_part, -(-last // _RECIPE_PART_FRAMES))
        ]
        cells = np.concatenate(parts, axis=1)
        offset = first - first_part * _RECIPE_PART_FRAMES
        gain = cells[:, offset : offset + last - first].astype(np.float32) * np.float32(QUANTIZATION_STEP_DB)
        return gain


def pack_mask_parts(mask: Mask) -> Iterator[str]:
    """Yield the coded parts of a mask, as `MaskRecord.parts` contains them."""
    return parallel_map(_pack_gains, read_segments(mask.gains, _RECIPE_PART_FRAMES))


def _pack_gains(gain_db: Levels) -> str:
    cells = np.round(gain_db / QUANTIZATION_STEP_DB).astype(np.int16)
    # int16 wraps modulo 2¹⁶ here and in `_unpack_cells`, so the round trip is exact for any gains.
    change = np.diff(cells, n=2, axis=1, prepend=np.zeros((len(cells), 2), np.int16))
    folded = ((change << 1) ^ (change >> 15)).astype("<u2")
    # High bytes are mostly 0; together they compress to almost nothing.
    low_high = folded.view(np.uint8).reshape(-1, 2).T
    return base64.b64encode(zlib.compress(low_high.tobytes())).decode()


def _unpack_cells(part: str, rows: int, frames: int) -> NDArray[np.int16]:
    size = rows * frames * 2
    try:
        unpacker = zlib.decompressobj()
        # One byte more than expected shows a longer part without unpacking all of it.
        content = unpacker.decompress(base64.b64decode(part, validate=True), size + 1)
    except (ValueError, zlib.error):
        content = b""
    if len(content) != size:
        raise RecipeError("the recipe's mask is damaged: make the recipe again")
    low_high = np.frombuffer(content, np.uint8).reshape(2, -1)
    folded = np.ascontiguousarray(low_high.T).view("<u2").reshape(rows, frames)
    # Inverse of the zigzag coding: even numbers are ≥ 0, odd ones negative.
    change = ((folded >> 1) ^ -(folded & 1)).astype(np.int16)
    return np.cumsum(np.cumsum(change, axis=1, dtype=np.int16), axis=1, dtype=np.int16)


class TransferRecord(Settings):
    """Recipe whose mask was transferred to another recording.

    `varying` is the variation over time: `none` (static part only), `same` (that of the recipe),
    `together` (the recording's own, with the static part of several recordings), or the prior that
    computed it.
    """

    recipe: str
    sha256: str
    varying: str


class Recipe(Settings):
    """Everything that an output depends on, and its certificate.

    `mask` is of all channels, or of the first component if they are not linked; `others` are of the rest.
    """

    format: Literal["tonewood-recipe"] = "tonewood-recipe"
    version: Literal[2] = 2
    tonewood: str
    input: InputRecord
    model: ModelRecord
    settings: EnhanceSettings
    prior: str
    steps: int = Field(ge=0)
    gain_db: float = Field(ge=-300, le=300)
    certificate: Certificate
    loudness_lufs: Change | None
    mask: MaskRecord
    spectrum: SpectrumSettings
    others: tuple[MaskRecord, ...] = Field((), exclude_if=lambda others: not others)
    carried: TransferRecord | None = None
    output_sha256: str | None = None

    def to_masks(self) -> tuple[Mask, ...]:
        """Return the mask of each component; RecipeError if they do not fit the recording."""
        link, channels = self.settings.render.link, self.input.channels
        fits = channels >= 1 and (link != "mid-side" or channels <= 2)
        if not fits or len(self.others) + 1 != count_components(channels, link):
            raise RecipeError("the recipe's masks do not fit its channels: make the recipe again")
        return (self.mask.to_mask(), *(record.to_mask() for record in self.others))

    def save(self, path: Path, *, overwrite: bool = False, mask: Mask | None = None) -> None:
        """Write the recipe atomically.

        `mask` has the gains to write, if the recipe was recorded without them.
        """
        without_parts = self.model_copy(update={"mask": self.mask.model_copy(update={"parts": ()})})
        head, tail = without_parts.model_dump_json(indent=1).split('"parts": []')
        with atomic_path(path, overwrite) as temporary, temporary.open("w", encoding="utf-8") as out:
            # The parts are most of a long recipe and need no escaping, so they are streamed.
            out.write(head + '"parts": [')
            for number, part in enumerate(self.mask.parts if mask is None else pack_mask_parts(mask)):
                out.write(f'{"," if number else ""}\n   "{part}"')
            out.write("\n  ]" + tail + "\n")


def count_json_values(text: bytes) -> int:
    """Return an upper bound of the number of values in a JSON text, from its commas and brackets.

    A megabyte of `[0,0,0` needs a hundred when it is parsed; counting first needs no memory.
    """
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; RecipeError if the file is not one."""
    try:
        return parse_recipe(read_regular(path), path)
    except OSError as error:
        reason = failure_reason(error)
        raise RecipeError(f"{printable(path)} cannot be read ({reason}): check the file") from None


def parse_recipe(content: bytes, path: str | Path) -> Recipe:
    """Parse the content of a recipe file; RecipeError if it is not a recipe."""
    if count_json_values(content) > _MAX_RECIPE_VALUES:
        raise _not_a_recipe_error(path)
    try:
        return Recipe.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise RecipeError(
                f"{printable(path)} has version {first['input']}; this Tonewood reads 2: "
                "update Tonewood or make the recipe again"
            ) from None
        if first["type"] == "json_invalid":
            raise _not_a_recipe_error(path) from None
        reason = printable(": ".join([*map(str, first["loc"]), first["msg"].lower()]))
        raise RecipeError(
            f"{printable(path)} is not a Tonewood recipe, or is damaged ({reason[:200]}): make it again"
        ) from None


def _not_a_recipe_error(path: str | Path) -> RecipeError:
    """Return the error for a file that is not JSON, such as the output whose recipe is meant."""
    is_named_so = str(path).endswith(RECIPE_SUFFIX)
    remedy = "make it again" if is_named_so else f"name a recipe, such as take.wav{RECIPE_SUFFIX}"
    return RecipeError(f"{printable(path)} is not a Tonewood recipe, or is damaged: {remedy}")
