"""The recipe beside an output: all that is needed to render it again, exactly."""

import base64
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from tonewood.errors import RecipeError, shown
from tonewood.files.output import write_text
from tonewood.masking.certify import Certificate, Change
from tonewood.masking.mask import Mask
from tonewood.settings import EnhanceSettings, Settings, SpectrumSettings

SUFFIX = ".recipe.json"
_STEP_DB = 0.01
_MAX_CELLS = 2**28


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
    """The mask grid: hundredths of a dB as int16, little-endian, row by row, zlib, base64."""

    rows: int
    frames: int
    hz: tuple[float, ...]
    hop_seconds: float
    top_hz: float
    centi_db: str

    @classmethod
    def of(cls, mask: Mask) -> "MaskRecord":
        """Record a mask; exact for one that is `rounded`."""
        cells = np.round(mask.gain_db / _STEP_DB).astype("<i2")
        packed = base64.b64encode(zlib.compress(cells.tobytes(), 9)).decode()
        rows, frames = mask.gain_db.shape
        return cls(
            rows=rows,
            frames=frames,
            hz=tuple(mask.hz.tolist()),
            hop_seconds=mask.hop_seconds,
            top_hz=mask.top_hz,
            centi_db=packed,
        )

    def mask(self) -> Mask:
        """Mask that was recorded; RecipeError where the record contradicts itself."""
        rising = all(0 <= a < b for a, b in pairwise(self.hz))
        shaped = min(self.rows, self.frames) > 0 and len(self.hz) == self.rows
        placed = rising and self.hop_seconds > 0 and self.top_hz > 0
        if not (shaped and placed and self.rows * self.frames <= _MAX_CELLS):
            raise RecipeError("the recipe's mask grid contradicts itself: make the recipe again")
        size = self.rows * self.frames * 2
        try:
            unpacker = zlib.decompressobj()
            content = unpacker.decompress(base64.b64decode(self.centi_db, validate=True), size + 1)
        except (ValueError, zlib.error):
            content = b""
        if len(content) != size:
            raise RecipeError("the recipe's mask grid is damaged: make the recipe again")
        cells = np.frombuffer(content, dtype="<i2").reshape(self.rows, self.frames)
        gain = cells.astype(np.float32) * np.float32(_STEP_DB)
        return Mask(gain, np.array(self.hz), self.hop_seconds, self.top_hz)


class CarriedRecord(Settings):
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
    version: Literal[1] = 1
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
    # Recipes of 0.1.0 lack what follows; all their models had this analysis.
    spectrum: SpectrumSettings = SpectrumSettings()
    carried: CarriedRecord | None = None
    output_sha256: str | None = None

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the recipe, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n", overwrite=overwrite)


def load(path: Path) -> Recipe:
    """Read a recipe; RecipeError if it is none."""
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RecipeError(f"{shown(path)} cannot be read ({why}): check the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            raise RecipeError(
                f"{shown(path)} has version {first['input']}; this Tonewood reads 1: "
                "update Tonewood or make the recipe again"
            ) from None
        raise RecipeError(f"{shown(path)} is not a Tonewood recipe, or is damaged") from None
