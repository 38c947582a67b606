"""Apply a recipe's mask to other recordings, or render a recipe's own output again.

The static part of a mask is transferred unchanged. Its variation over time belongs to one take, so the
model's prior computes a new one for another take. Stems of the same take may use the same mask: then
their sum is what the mix would have become, because filtering by a fixed mask is linear.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, default_output_name
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.enhancement.analysis import Analysis, AudioSource, analyse_source
from tonewood.enhancement.mask_search import FoundMask, check_limits, mask_grid
from tonewood.enhancement.output_files import (
    AUDIO_OUTPUTS,
    check_outputs,
    cleanup_on_error,
    overwrites_input_error,
    write_output_audio,
)
from tonewood.enhancement.pipeline import StreamedEnhancement, render_and_certify
from tonewood.enhancement.prior_mask import find_prior_mask, predict_mask
from tonewood.enhancement.recipe import RECIPE_SUFFIX, InputRecord, Recipe, TransferRecord, load_recipe
from tonewood.errors import AudioError, CallError, RecipeError, printable
from tonewood.mask.components import mean_gain_db
from tonewood.mask.mask import Mask
from tonewood.mask.render import render_blocks
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings
from tonewood.utils.arrays import Levels
from tonewood.utils.files import fit_name, listed_path, real_path

TransferMode = Literal["prior", "static", "same"]
_ADAPTIVE_PRIORS = ("auto", "neighbours", "network", "predicted")


@dataclass(frozen=True)
class MaskTransfer:
    """A recipe's mask, to be applied to other recordings."""

    input: InputRecord  # recording that the mask was found for
    mask: Mask
    record: TransferRecord  # goes into the recipes of the outputs
    model_digest: str  # of the model that found the mask


def load_transfer(path: Path, mode: TransferMode) -> tuple[Recipe, MaskTransfer]:
    """Read a recipe and its mask; RecipeError if the file is not a recipe."""
    recipe = load_recipe(path)
    if recipe.others:
        raise CallError(
            f"{printable(path)} has separate masks for {components_text(recipe)}, which fit no other "
            "recording: enhance the other with the same options"
        )
    varying = {"static": "none", "same": "same", "prior": recipe.prior}[mode]
    if mode == "prior" and recipe.prior not in _ADAPTIVE_PRIORS:
        varying = "none"
    record = TransferRecord(recipe=path.name, sha256=file_sha256(path), varying=varying)
    return recipe, MaskTransfer(recipe.input, recipe.mask.to_mask(), record, recipe.model.digest)


def components_text(recipe: Recipe) -> str:
    """Return what has a mask of its own, in words."""
    return "mid and side" if recipe.settings.render.link == "mid-side" else "each channel"


def transfer_settings(recipe: Recipe, mode: TransferMode) -> EnhanceSettings:
    """Return the settings for the transfer of a recipe's mask: those of its own output.

    With the same mask goes the same gain. Another take keeps its own loudness, and the recipe's start
    and end time do not apply to it.
    """
    if mode == "same":
        return recipe.settings.replace(render=dict(match=False, gain_db=recipe.gain_db, link="all"))
    return recipe.settings.replace(render=dict(link="all", aspect=dict(start_s=None, end_s=None)))


def apply_transfer(
    source: AudioSource,
    model: Model,
    transfer: MaskTransfer,
    settings: EnhanceSettings,
    scratch_dir: Path | None = None,
) -> StreamedEnhancement:
    """Apply a transferred mask to a recording of any length.

    Raises
    ------
    AudioError
        The same mask is requested, and the recording has another length; or the limits leave nothing.
    CallError
        The model's frequency rows are not those of the mask.
    """
    # The recipe's search is not repeated: only the prior is evaluated for the new recording.
    used = settings.replace(search=dict(steps=0))
    varying = transfer.record.varying
    # Only a prior that adapts to the recording reads its pitches.
    adapts = varying not in ("same", "together", "none")
    analysis = analyse_source(source, model, scratch_dir, with_pitch=adapts)
    check_limits(analysis.n_samples, source.rate, settings.render)
    if varying in ("same", "together"):
        _check_same_duration(analysis.n_samples, source.rate, transfer.input)
        mask = transfer.mask
    elif varying == "none":
        # A mask of one frame holds for all times, however long the other recording is.
        static = transfer.mask.slice_frames(0, 1)
        static = static.with_gains(mean_gain_db(transfer.mask)[:, None])
        mask = static.clip(settings.render.max_gain_db).quantize()
    else:
        mask = _adapt_mask(transfer.mask, source, analysis, model, used, scratch_dir)
    return render_and_certify(source, analysis, FoundMask(mask, 0), model, settings, used, scratch_dir)


def _adapt_mask(
    original: Mask,
    source: AudioSource,
    analysis: Analysis,
    model: Model,
    settings: EnhanceSettings,
    scratch_dir: Path | None,
) -> Mask:
    """Combine a mask's static part with the variation over time of the model's prior mask."""
    grid, limit = mask_grid(analysis, model, "search"), settings.render.max_gain_db
    # Gains are added row by row, so both masks must have the same rows.
    if len(grid.hz) != len(original.hz) or not np.allclose(grid.hz, original.hz):
        raise CallError(
            f"model {model.name} has {len(grid.hz)} frequency rows and the recipe {len(original.hz)}: use "
            "the recipe's own model, or pass --static-only"
        )
    if settings.prior.kind == "predicted":
        moves = predict_mask(source, model, limit, scratch_dir)
    else:
        hop = model.settings.spectrum.hop / model.settings.spectrum.rate
        prior_db = find_prior_mask(
            settings.prior.kind, analysis, grid.hz, model, scratch_dir, fade=not settings.force
        ).mask_db
        moves = Mask(prior_db, original.hz, hop, original.top_hz)
    return with_static_part(moves, mean_gain_db(original), limit)


def with_static_part(mask: Mask, static_db: NDArray[np.float32], limit: float) -> Mask:
    """Return a mask with another mean over time [row] and the same variation, within ±`limit` dB."""
    shift = (static_db - mean_gain_db(mask))[:, None]

    def make(begin: int, end: int) -> Levels:
        part = mask.slice_frames(begin, min(end, mask.frames))
        part = part.with_gains(part.gain_db + shift).clip(limit).quantize()
        return part.gain_db

    return mask.with_gains(LazyTimeSeries(mask.frames, make))


def _check_same_duration(n_samples: int, rate: int, original: InputRecord) -> None:
    seconds, recipe_seconds = n_samples / rate, original.samples / original.rate
    # Durations of the same take at two rates differ by less than one sample of the lower rate.
    if abs(seconds - recipe_seconds) > 1 / min(rate, original.rate):
        raise AudioError(
            f"the recording lasts {seconds:.3f} s, the recipe's {recipe_seconds:.3f} s; the same mask "
            "fits only stems of the same take: leave out --same-mask"
        )


class RerenderResult(NamedTuple):
    """Result of rendering a recipe again.

    `identical` is whether the output has the bytes of the first one; None if the recipe does not record them,
    or the format differs.
    """

    recipe: Path
    input: Path
    output: Path
    sha256: str
    identical: bool | None


def render_recipe(
    path: Path, recording: Path | None, out: Path, *, overwrite: bool = False
) -> RerenderResult:
    """Render a recipe's output again.

    Parameters
    ----------
    recording : Path, optional
        If None, the recording is looked for, by its name, beside the recipe and beside `out`.
    out : Path
        A file, or a folder; there the output gets the recording's name.

    Raises
    ------
    RecipeError
        The file is not a recipe, or the recording is not found or is another one.
    OutputError, AudioError
        The output cannot be written, or the recording cannot be read.
    """
    recipe = load_recipe(path)
    output = out
    if not AUDIO_OUTPUTS.is_file(out, single=True):
        output = out / fit_name(default_output_name(Path(Path(recipe.input.name).name)).name)
    if output.suffix.lower() not in WRITABLE_SUFFIXES:  # a recipe may come from anyone
        raise RecipeError(
            f"{printable(path)} was made from {printable(output.name)}, whose format cannot be written: "
            "name an output such as take.wav"
        )
    source = _find_recipe_input(path, recipe, recording, output)
    if real_path(source) == real_path(output):
        raise overwrites_input_error(source, output)
    check_outputs(source, [output], overwrite)
    reader = AudioReader(source)
    blocks = _output_blocks(reader, recipe)
    with cleanup_on_error([output]):
        write_output_audio(
            source, output, reader, blocks, recipe.input.samples, recipe.settings.render, overwrite=overwrite
        )
    # Other versions of libsndfile or NumPy may round differently, which the user should know.
    digest = file_sha256(output)
    identical = None
    # The recipe's name contains that of its output, and so the output's format.
    recorded_suffix = Path(path.name.removesuffix(RECIPE_SUFFIX)).suffix.lower()
    if recipe.output_sha256 and output.suffix.lower() == recorded_suffix:
        identical = digest == recipe.output_sha256
    return RerenderResult(path, source, output, digest, identical)


def _output_blocks(stream: AudioReader, recipe: Recipe) -> Iterator[NDArray[np.float32]]:
    """Yield the output in blocks (channels, samples), with the recipe's gain."""
    settings = recipe.settings.render
    if settings.amount == 0:
        yield from stream.blocks()
        return
    factor = np.float32(10 ** (recipe.gain_db / 20))
    masks = recipe.to_masks()
    blocks = render_blocks(stream.blocks(), stream.rate, stream.channels, masks, settings, recipe.spectrum)
    for block in blocks:
        yield block * factor


def _find_recipe_input(path: Path, recipe: Recipe, recording: Path | None, output: Path) -> Path:
    original = recipe.input
    if recording is not None:
        digest = file_sha256(recording)
        if digest != original.sha256:
            raise RecipeError(
                f"{printable(recording)} is not the recording that {printable(path.name)} was made from "
                f"(SHA-256 {digest[:8]}…, not {original.sha256[:8]}…): name {printable(original.name)}"
            )
        return recording
    # By hash and not by name alone: the output often has its input's name.
    candidates = list(_input_candidates(path, original.name, output))
    for candidate in candidates:
        if file_sha256(candidate) == original.sha256:
            return candidate
    with_hash = " with the recipe's SHA-256" if candidates else ""
    raise RecipeError(
        f"there is no {printable(original.name)}{with_hash} beside {printable(path)} or beside the output: "
        "give the recording after the recipe"
    )


def _input_candidates(path: Path, name: str, output: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((path.parent, output.parent)):
        # The name comes from a file, so folders in it are ignored.
        candidate = listed_path(folder, Path(name).name)
        if os.path.isfile(candidate):  # noqa: PTH113 - `Path.is_file` raises an error for a long name
            yield candidate
