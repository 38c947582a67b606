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
from tonewood.files.recipe import TransferRecord, InputRecord, Recipe
from tonewood.masking.aspects import mean_gain_db
from tonewood.masking.mask import LazyMask
from tonewood.settings import EnhanceSettings, apply_assignments
from tonewood.signal.tracks import LazyTimeSeries
from tonewood.workflow.enhance import StreamedEnhancement, render_and_certify
from tonewood.workflow.hearing import Analysis, AudioSource, analyse_source
from tonewood.workflow.mask import FoundMask, find_prior_mask, mask_grid
from tonewood.workflow.predict import predict_mask

TransferMode = Literal["prior", "static", "same"]
_ADAPTIVE_PRIORS = ("auto", "neighbours", "network", "predicted")


@dataclass(frozen=True)
class MaskTransfer:
    """A recipe's correction, and how it is to be carried.

    Parameters
    ----------
    input : InputRecord
        The recording that it was found for.
    mask : LazyMask
        As found.
    record : TransferRecord
        Kept in the recipes of what it is carried to.
    model_digest : str
        Of the model that it was found with.
    """

    input: InputRecord
    mask: LazyMask
    record: TransferRecord
    model_digest: str


def load_transfer(path: Path, mode: TransferMode) -> tuple[Recipe, MaskTransfer]:
    """Read the recipe whose correction is to be carried; RecipeError where it is none."""
    recipe = recipes.load_recipe(path)
    varying = {"static": "none", "same": "same", "prior": recipe.prior}[mode]
    if mode == "prior" and recipe.prior not in _ADAPTIVE_PRIORS:
        varying = "none"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = TransferRecord(recipe=path.name, sha256=digest, varying=varying)
    return recipe, MaskTransfer(recipe.input, recipe.mask.to_lazy_mask(), record, recipe.model.digest)


def transfer_settings(recipe: Recipe, mode: TransferMode) -> EnhanceSettings:
    """How what a recipe is carried to is rendered: as its own output was.

    The very same mask comes with the very same gain. Another take keeps its own loudness, and a
    span of time means nothing in it.
    """
    if mode == "same":
        return apply_assignments(
            recipe.settings, ["render.match=false", f"render.gain_db={recipe.gain_db!r}"]
        )
    return apply_assignments(recipe.settings, ["render.aspect.start_s=null", "render.aspect.end_s=null"])


def apply_transfer(
    source: AudioSource,
    model: Model,
    transfer: MaskTransfer,
    settings: EnhanceSettings,
    scratch_dir: Path | None = None,
) -> StreamedEnhancement:
    """Apply a carried correction to a recording of any length.

    Parameters
    ----------
    scratch_dir : Path, optional
        As of `enhance_stream`.

    Raises
    ------
    AudioError
        The very same mask is asked for, and the recording is of another length.
    CallError
        The model's rows are not those of the mask.
    """
    used = apply_assignments(settings, ["search.steps=0"])
    varying = transfer.record.varying
    heard = analyse_source(source, model, scratch_dir)
    if varying == "same":
        _check_same_duration(heard.n_samples, source.rate, transfer.input)
        mask = transfer.mask
    elif varying == "none":
        static = transfer.mask.slice_frames(0, 1)
        static = replace(static, gain_db=mean_gain_db(transfer.mask)[:, None])
        mask = LazyMask.from_mask(static.clip(settings.render.max_gain_db).quantize())
    else:
        mask = _adapt_mask(transfer.mask, source, heard, model, used, scratch_dir)
    return render_and_certify(source, heard, FoundMask(mask, 0), model, settings, used, scratch_dir)


def _adapt_mask(
    original: LazyMask,
    source: AudioSource,
    analysis: Analysis,
    model: Model,
    settings: EnhanceSettings,
    scratch_dir: Path | None,
) -> LazyMask:
    """A mask's static part, moved as the model's prior moves for a recording."""
    grid, limit = mask_grid(analysis, model, "search"), settings.render.max_gain_db
    if len(grid.hz) != len(original.hz) or not np.allclose(grid.hz, original.hz):
        raise CallError(
            f"model {model.name} has {len(grid.hz)} rows, not the recipe's {len(original.hz)}: name "
            "the model that the recipe was made with, or pass --static-only"
        )
    if settings.prior.kind == "predicted":
        moves = predict_mask(source, model, limit, scratch_dir)
    else:
        hop = model.settings.spectrum.hop / model.settings.spectrum.rate
        found = find_prior_mask(settings.prior.kind, analysis, grid, model, scratch_dir).mask_db
        moves = LazyMask(found, original.hz, hop, original.top_hz)
    shift = (mean_gain_db(original) - mean_gain_db(moves))[:, None]

    def make(begin: int, end: int) -> Tensor:
        part = moves.slice_frames(begin, end)
        part = replace(part, gain_db=part.gain_db + shift).clip(limit).quantize()
        return torch.from_numpy(part.gain_db)

    return replace(moves, gain_db=LazyTimeSeries(moves.gain_db.frames, make))


def _check_same_duration(n_samples: int, rate: int, original: InputRecord) -> None:
    here, there = n_samples / rate, original.samples / original.rate
    if abs(here - there) > 1 / min(rate, original.rate):
        raise AudioError(
            f"the recording lasts {here:.3f} s, the recipe's {there:.3f} s; the same mask fits "
            "stems of the same take only: leave out --same-mask"
        )
