"""A correction that was found once, carried to other recordings.

What a mask does on average is carried as it is. How it moves belongs to the moments of one take,
so another take's is asked of the model's prior again; stems of the same take may have the very
same mask instead, and then add up to what the mix would have become.

A recipe and the recording that it was made from → the same output again.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, default_output_name
from tonewood.audio_io.reader import AudioReader
from tonewood.audio_io.recording import file_sha256
from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.analysis import Analysis, AudioSource, analyse_source
from tonewood.enhancement.mask_search import FoundMask, mask_grid
from tonewood.enhancement.output_files import (
    FileJob,
    check_outputs,
    cleanup_on_error,
    write_output_audio,
)
from tonewood.enhancement.pipeline import StreamedEnhancement, render_and_certify
from tonewood.enhancement.prior_mask import find_prior_mask, predict_mask
from tonewood.enhancement.recipe import InputRecord, Recipe, TransferRecord
from tonewood.errors import AudioError, CallError, OutputError, RecipeError, printable
from tonewood.mask.components import mean_gain_db
from tonewood.mask.mask import Mask
from tonewood.mask.render import render_blocks
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

TransferMode = Literal["prior", "static", "same"]
_ADAPTIVE_PRIORS = ("auto", "neighbours", "network", "predicted")


@dataclass(frozen=True)
class MaskTransfer:
    """A recipe's correction, and how it is to be carried.

    Parameters
    ----------
    input : InputRecord
        The recording that it was found for.
    mask : Mask
        As found.
    record : TransferRecord
        Kept in the recipes of what it is carried to.
    model_digest : str
        Of the model that it was found with.
    """

    input: InputRecord
    mask: Mask
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
    return recipe, MaskTransfer(recipe.input, recipe.mask.to_mask(), record, recipe.model.digest)


def transfer_settings(recipe: Recipe, mode: TransferMode) -> EnhanceSettings:
    """How what a recipe is carried to is rendered: as its own output was.

    The very same mask comes with the very same gain. Another take keeps its own loudness, and a
    span of time means nothing in it.
    """
    if mode == "same":
        return recipe.settings.replace(render=dict(match=False, gain_db=recipe.gain_db))
    return recipe.settings.replace(render=dict(aspect=dict(start_s=None, end_s=None)))


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
    used = settings.replace(search=dict(steps=0))
    varying = transfer.record.varying
    heard = analyse_source(source, model, scratch_dir)
    if varying == "same":
        _check_same_duration(heard.n_samples, source.rate, transfer.input)
        mask = transfer.mask
    elif varying == "none":
        static = transfer.mask.slice_frames(0, 1)
        static = static.with_gains(mean_gain_db(transfer.mask)[:, None])
        mask = static.clip(settings.render.max_gain_db).quantize()
    else:
        mask = _adapt_mask(transfer.mask, source, heard, model, used, scratch_dir)
    return render_and_certify(source, heard, FoundMask(mask, 0), model, settings, used, scratch_dir)


def _adapt_mask(
    original: Mask,
    source: AudioSource,
    analysis: Analysis,
    model: Model,
    settings: EnhanceSettings,
    scratch_dir: Path | None,
) -> Mask:
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
        found = find_prior_mask(settings.prior.kind, analysis, grid.hz, model, scratch_dir).mask_db
        moves = Mask(found, original.hz, hop, original.top_hz)
    shift = (mean_gain_db(original) - mean_gain_db(moves))[:, None]

    def make(begin: int, end: int) -> Tensor:
        part = moves.slice_frames(begin, end)
        part = part.with_gains(part.gain_db + shift).clip(limit).quantize()
        return torch.from_numpy(part.gain_db)

    return moves.with_gains(LazyTimeSeries(moves.frames, make))


def _check_same_duration(n_samples: int, rate: int, original: InputRecord) -> None:
    here, there = n_samples / rate, original.samples / original.rate
    if abs(here - there) > 1 / min(rate, original.rate):
        raise AudioError(
            f"the recording lasts {here:.3f} s, the recipe's {there:.3f} s; the same mask fits "
            "stems of the same take only: leave out --same-mask"
        )


class RerenderResult(NamedTuple):
    """An output that was made again.

    Parameters
    ----------
    identical : bool or None
        Whether it has the bytes of the first; None where the recipe does not say what those were,
        or where another format was asked for.
    """

    recipe: Path
    input: Path
    output: Path
    sha256: str
    identical: bool | None


def render_recipe(
    path: Path, recording: Path | None, out: Path, *, overwrite: bool = False
) -> RerenderResult:
    """Make a recipe's output again.

    Parameters
    ----------
    recording : Path, optional
        The recording. Without it one of its name is looked for beside the recipe and beside `out`.
    out : Path
        A file, or a folder that is there; in it the output gets the recording's name.

    Raises
    ------
    RecipeError
        The recipe is none, or the recording is not found or is another one.
    OutputError, AudioError
        As of `enhance_files`.
    """
    recipe = recipes.load_recipe(path)
    output = out / default_output_name(Path(Path(recipe.input.name).name)) if out.is_dir() else out
    if output.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError(
            f"{printable(output)} is no kind of audio file that can be written: "
            "name one such as .wav or .flac, or an existing folder"
        )
    job = FileJob(_find_recipe_input(path, recipe, recording, output), output)
    if job.input.resolve() == output.resolve():
        raise OutputError(f"{printable(output)} is the input itself: name another output")
    check_outputs(job, [output], overwrite)
    stream = AudioReader(job.input)
    settings = recipe.settings.render
    shape = (stream.channels, recipe.input.samples)
    with cleanup_on_error([output]):
        write_output_audio(job, stream, _output_blocks(stream, recipe), shape, settings, overwrite=overwrite)
    digest = file_sha256(output)
    same = None
    if recipe.output_sha256 and output.suffix.lower() == _recorded_suffix(path):
        same = digest == recipe.output_sha256
    return RerenderResult(path, job.input, output, digest, same)


def _output_blocks(stream: AudioReader, recipe: Recipe) -> Iterator[NDArray[np.float32]]:
    """The output (channels, samples) at a time, with the gain that the recipe tells."""
    settings = recipe.settings.render
    if settings.amount == 0:
        yield from stream.blocks()
        return
    factor = np.float32(10 ** (recipe.gain_db / 20))
    mask = recipe.mask.to_mask()
    made = render_blocks(stream.blocks(), stream.rate, stream.channels, mask, settings, recipe.spectrum)
    for block in made:
        yield block * factor


def _recorded_suffix(path: Path) -> str:
    """Suffix of the output that a recipe lies beside, by the recipe's own name."""
    return Path(path.name.removesuffix(recipes.RECIPE_SUFFIX)).suffix.lower()


def _find_recipe_input(path: Path, recipe: Recipe, recording: Path | None, output: Path) -> Path:
    wanted = recipe.input
    if recording is not None:
        found = file_sha256(recording)
        if found != wanted.sha256:
            raise RecipeError(
                f"{printable(recording)} is not the recording that {printable(path.name)} was made from "
                f"(SHA-256 {found[:8]}…, not {wanted.sha256[:8]}…): name {wanted.name}"
            )
        return recording
    there = list(_input_candidates(path, wanted.name, output))
    for candidate in there:
        if file_sha256(candidate) == wanted.sha256:
            return candidate
    what = "lies" if not there else "with the recipe's SHA-256 lies"
    raise RecipeError(
        f"no {wanted.name} {what} beside {printable(path)} or beside the output: "
        "name the recording after the recipe"
    )


def _input_candidates(path: Path, name: str, output: Path) -> Iterator[Path]:
    for folder in dict.fromkeys((path.parent, output.parent)):
        if (folder / Path(name).name).is_file():
            yield folder / Path(name).name
