"""Find the masks of a recording: decide whether it needs one, and search that of each component."""

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.dsp.channel_components import count_components
from tonewood.dsp.chunking import LazyTimeSeries
from tonewood.enhancement.analysis import Analysis, AudioSource, ComponentSource, analyse_source
from tonewood.enhancement.certification import InputMeasurements, measure_input
from tonewood.enhancement.mask_search import FoundMask, find_mask
from tonewood.enhancement.preference_settings import settings_for_preference_model
from tonewood.enhancement.prior_mask import predict_mask
from tonewood.errors import AudioError
from tonewood.mask.certificate import is_unknown_kind, needs_no_change
from tonewood.mask.search import SearchStep
from tonewood.model.model import Model
from tonewood.setting_types import ChannelLink, EnhanceMethod, PriorKind
from tonewood.settings import EnhanceSettings
from tonewood.utils.arrays import Levels


class FoundRecording(NamedTuple):
    """Analysis of a recording, and its mask with the settings that it was found with."""

    analysis: Analysis
    before: InputMeasurements
    mask: FoundMask
    settings: EnhanceSettings


def _check_link(channels: int, link: ChannelLink) -> None:
    if link == "mid-side" and channels > 2:
        raise AudioError(
            f"the recording has {channels} channels, and mid and side need 2: use --link off for a mask of "
            "each channel"
        )


def find_masks(
    source: AudioSource, model: Model, settings: EnhanceSettings, scratch_dir: Path | None
) -> Generator[SearchStep, None, FoundRecording]:
    """Find the mask of a recording, or of each of its components if its channels are not linked."""
    link = settings.render.link
    _check_link(source.channels, link)
    count = count_components(source.channels, link)
    if count == 1:
        return (yield from _find_component_mask(source, model, settings, scratch_dir))
    if link == "mid-side":
        # Every analysis is of the mean of the channels, which is the mid.
        whole = yield from _find_component_mask(source, model, settings, scratch_dir)
        masks = [whole.mask]
    else:
        unsearched = settings.replace(prior=dict(kind="none"), search=dict(steps=0))
        whole = yield from _find_component_mask(source, model, unsearched, scratch_dir)
        masks = []
    for index in range(len(masks), count):
        part = ComponentSource(source, link, index)
        if part.is_silent:
            zeros = LazyTimeSeries(whole.mask.mask.frames, partial(_no_gains, len(whole.mask.mask.hz)))
            masks.append(FoundMask(whole.mask.mask.with_gains(zeros), 0))
        else:
            part_result = yield from _find_component_mask(part, model, settings, scratch_dir)
            masks.append(part_result.mask)
            whole = whole if link == "mid-side" else whole._replace(settings=part_result.settings)
    steps = max(mask.steps for mask in masks)
    return whole._replace(mask=FoundMask(masks[0].mask, steps, tuple(mask.mask for mask in masks[1:])))


def _no_gains(rows: int, start: int, stop: int) -> Levels:
    return np.zeros((rows, stop - start), dtype=np.float32)


def _find_component_mask(
    source: AudioSource, model: Model, settings: EnhanceSettings, scratch_dir: Path | None
) -> Generator[SearchStep, None, FoundRecording]:
    # The predictor reads levels only, so a prediction without search needs no pitch analysis.
    one_pass = settings.prior.kind == "predicted" and settings.search.steps == 0
    analysis = analyse_source(source, model, scratch_dir, with_pitch=not one_pass)
    check_start_time(analysis.n_samples / source.rate, settings)
    used = settings_for_preference_model(settings, model)
    before = measure_input(analysis.rows_db, model, used)
    kind = None if settings.force else _substitute_prior(before, model, settings.method)
    if kind is not None:
        used = settings.replace(prior=dict(kind=kind), search=dict(steps=0))
        if one_pass and kind == "auto":  # which reads pitches
            analysis = analyse_source(source, model, scratch_dir)
    # Settings that were changed above go through `find_mask`, which evaluates any prior.
    if one_pass and used is settings:
        found_mask = FoundMask(predict_mask(source, model, used.render.max_gain_db, scratch_dir), 0)
    else:
        nearer = min(before.unlikeness, before.unlike_reference)
        found_mask = yield from find_mask(analysis, model, used, scratch_dir=scratch_dir, unlikeness=nearer)
    return FoundRecording(analysis, before, found_mask, used)


def _substitute_prior(before: InputMeasurements, model: Model, method: EnhanceMethod) -> PriorKind | None:
    """Return the prior that replaces a search: for a recording that needs none, or that is unknown."""
    if method == "paper":
        return None  # the paper's method has no such check
    graded = model.has_graded_scorer
    if graded and needs_no_change(before.scorer, before.judge, before.unlike_reference):
        return "none"
    if not is_unknown_kind(before.unlikeness, before.unlike_reference, graded):
        return None
    # 0.5 is the border between the classes: 0 is the reference, 1 the source.
    if before.scorer < 0.5 or model.learnt_priors is None:
        return "none"
    # Without its adaptive part `auto` is the static mask, as strong as the recording needs it.
    return "auto" if graded else "static"


def check_start_time(seconds: float, settings: EnhanceSettings) -> None:
    """Raise AudioError if the part to change starts after the recording's end."""
    start = settings.render.aspect.start_s
    if start is not None and start >= seconds:
        raise AudioError(
            f"the recording lasts {seconds:.1f} s; there is nothing to change from {start:g} s on: "
            "give an earlier start"
        )
