"""A correction that was found once, carried to other recordings.

What a mask does on average is carried as it is. How it moves belongs to the moments of one take,
so another take's is asked of the model's prior again; stems of the same take may have the very
same mask instead, and then add up to what the mix would have become.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tonewood.errors import AudioError, CallError
from tonewood.files import recipe as recipes
from tonewood.files.modelfile import Model
from tonewood.files.recipe import CarriedRecord, InputRecord, Recipe
from tonewood.masking.aspects import bands, dynamics_of_bands
from tonewood.masking.mask import Mask
from tonewood.settings import EnhanceSettings, changed
from tonewood.workflow.enhance import Enhancement, conclude, grid_of, mono_at, prior_mask

How = Literal["prior", "static", "same"]
_ADAPTING = ("auto", "neighbours", "network")


@dataclass(frozen=True)
class Carried:
    """A recipe's correction, and how it is to be carried.

    Parameters
    ----------
    input : InputRecord
        The recording that it was found for.
    mask : Mask
        As found.
    record : CarriedRecord
        Kept in the recipes of what it is carried to.
    digest : str
        Of the model that it was found with.
    """

    input: InputRecord
    mask: Mask
    record: CarriedRecord
    digest: str


def load(path: Path, how: How) -> tuple[Recipe, Carried]:
    """Read the recipe whose correction is to be carried; RecipeError where it is none."""
    recipe = recipes.load(path)
    varying = {"static": "none", "same": "same", "prior": recipe.prior}[how]
    if how == "prior" and recipe.prior not in _ADAPTING:
        varying = "none"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = CarriedRecord(recipe=path.name, sha256=digest, varying=varying)
    return recipe, Carried(recipe.input, recipe.mask.mask(), record, recipe.model.digest)


def settings_of(recipe: Recipe, how: How) -> EnhanceSettings:
    """How what a recipe is carried to is rendered: as its own output was.

    The very same mask comes with the very same gain. Another take keeps its own loudness, and a
    span of time means nothing in it.
    """
    if how == "same":
        return changed(
            recipe.settings, ["render.match=false", f"render.gain_db={recipe.gain_db!r}"]
        )
    return changed(recipe.settings, ["render.aspect.start_s=null", "render.aspect.end_s=null"])


def carry(
    samples: NDArray[np.float32],
    rate: int,
    model: Model,
    carried: Carried,
    settings: EnhanceSettings,
) -> Enhancement:
    """Apply a carried correction to samples (channels, samples).

    Raises
    ------
    AudioError
        The very same mask is asked for, and the recording is of another length.
    CallError
        The model's rows are not those of the mask.
    """
    used = changed(settings, ["search.steps=0"])
    varying = carried.record.varying
    if varying == "same":
        _check_length(samples.shape[1], rate, carried.input)
        mask = carried.mask
    else:
        mask = bands(carried.mask)
        mask = replace(mask, gain_db=mask.gain_db[:, :1])
        if varying != "none":
            mask = _moved(mask, samples, rate, model, used)
    return conclude(samples, rate, mask, model, settings, used, steps=0)


def _moved(
    static: Mask, samples: NDArray[np.float32], rate: int, model: Model, used: EnhanceSettings
) -> Mask:
    """A static mask of one frame, moved as the model's prior moves for a recording."""
    wave = mono_at(samples, rate, model)
    grid = grid_of(wave, model, "search")
    if len(grid.hz) != len(static.hz) or not np.allclose(grid.hz, static.hz):
        raise CallError(
            f"model {model.name} has {len(grid.hz)} rows, not the recipe's {len(static.hz)}: name "
            "the model that the recipe was made with, or pass --static-only"
        )
    found = prior_mask(used.prior.kind, wave, grid, model).numpy().astype(np.float32)
    hop = model.settings.spectrum.hop / model.settings.spectrum.rate
    moves = dynamics_of_bands(Mask(found, static.hz, hop, static.top_hz))
    return replace(moves, gain_db=static.gain_db + moves.gain_db)


def _check_length(count: int, rate: int, first: InputRecord) -> None:
    here, there = count / rate, first.samples / first.rate
    if abs(here - there) > 1 / min(rate, first.rate):
        raise AudioError(
            f"the recording lasts {here:.3f} s, the recipe's {there:.3f} s; the same mask fits "
            "stems of the same take only: leave out --same-mask"
        )
