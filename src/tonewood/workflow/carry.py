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
import torch
from torch import Tensor

from tonewood.errors import AudioError, CallError
from tonewood.files import recipe as recipes
from tonewood.files.modelfile import Model
from tonewood.files.recipe import CarriedRecord, InputRecord, Recipe
from tonewood.masking.aspects import mean_db
from tonewood.masking.mask import LongMask
from tonewood.settings import EnhanceSettings, changed
from tonewood.signal.tracks import Made
from tonewood.workflow.enhance import Reshaped, conclude
from tonewood.workflow.hearing import Heard, Sound, listen
from tonewood.workflow.mask import Found, anchor, grid_of
from tonewood.workflow.predict import predicted_mask

How = Literal["prior", "static", "same"]
_ADAPTING = ("auto", "neighbours", "network", "predicted")


@dataclass(frozen=True)
class Carried:
    """A recipe's correction, and how it is to be carried.

    Parameters
    ----------
    input : InputRecord
        The recording that it was found for.
    mask : LongMask
        As found.
    record : CarriedRecord
        Kept in the recipes of what it is carried to.
    digest : str
        Of the model that it was found with.
    """

    input: InputRecord
    mask: LongMask
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
    return recipe, Carried(recipe.input, recipe.mask.long_mask(), record, recipe.model.digest)


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
    sound: Sound,
    model: Model,
    carried: Carried,
    settings: EnhanceSettings,
    folder: Path | None = None,
) -> Reshaped:
    """Apply a carried correction to a recording of any length.

    Parameters
    ----------
    folder : Path, optional
        As of `reshape`.

    Raises
    ------
    AudioError
        The very same mask is asked for, and the recording is of another length.
    CallError
        The model's rows are not those of the mask.
    """
    used = changed(settings, ["search.steps=0"])
    varying = carried.record.varying
    heard = listen(sound, model, folder)
    if varying == "same":
        _check_length(heard.samples, sound.rate, carried.input)
        mask = carried.mask
    elif varying == "none":
        static = carried.mask.part(0, 1)
        static = replace(static, gain_db=mean_db(carried.mask)[:, None])
        mask = LongMask.of(static.bounded(settings.render.max_gain_db).rounded())
    else:
        mask = _moved(carried.mask, sound, heard, model, used, folder)
    return conclude(sound, heard, Found(mask, 0), model, settings, used, folder)


def _moved(
    first: LongMask,
    sound: Sound,
    heard: Heard,
    model: Model,
    used: EnhanceSettings,
    folder: Path | None,
) -> LongMask:
    """A mask's static part, moved as the model's prior moves for a recording."""
    grid, limit = grid_of(heard, model, "search"), used.render.max_gain_db
    if len(grid.hz) != len(first.hz) or not np.allclose(grid.hz, first.hz):
        raise CallError(
            f"model {model.name} has {len(grid.hz)} rows, not the recipe's {len(first.hz)}: name "
            "the model that the recipe was made with, or pass --static-only"
        )
    if used.prior.kind == "predicted":
        moves = predicted_mask(sound, model, limit, folder)
    else:
        hop = model.settings.spectrum.hop / model.settings.spectrum.rate
        found = anchor(used.prior.kind, heard, grid, model, folder).mask_db
        moves = LongMask(found, first.hz, hop, first.top_hz)
    shift = (mean_db(first) - mean_db(moves))[:, None]

    def make(begin: int, end: int) -> Tensor:
        part = moves.part(begin, end)
        part = replace(part, gain_db=part.gain_db + shift).bounded(limit).rounded()
        return torch.from_numpy(part.gain_db)

    return replace(moves, gain_db=Made(moves.gain_db.frames, make))


def _check_length(count: int, rate: int, first: InputRecord) -> None:
    here, there = count / rate, first.samples / first.rate
    if abs(here - there) > 1 / min(rate, first.rate):
        raise AudioError(
            f"the recording lasts {here:.3f} s, the recipe's {there:.3f} s; the same mask fits "
            "stems of the same take only: leave out --same-mask"
        )
