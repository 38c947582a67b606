"""All computations stay on the device of their input, tested without a GPU.

Two stand-ins: tensors of `meta` have a shape and nothing else, so that no step can look at them
from outside; fake tensors of another device refuse to be mixed with those of the processor, as a
GPU's do (`lazy`, since a torch without CUDA cannot even cut fake tensors of `cuda`).
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from tests.conftest import instrument
from tonewood.dsp import features, stft
from tonewood.dsp.chunking import Chunk
from tonewood.dsp.features import (
    ReferenceLevels,
    band_levels,
    center_frequencies,
    compute_features,
    filterbank_levels,
    frame_levels,
    mean_level,
)
from tonewood.enhancement.mask_search import mask_scale, render_feedback
from tonewood.mask import mask as masks
from tonewood.mask import search
from tonewood.mask.mask import Mask, moving_average
from tonewood.mask.search import FreeMask, SearchProblem, compute_objective, search_mask
from tonewood.model.model import Model
from tonewood.priors import nearest_neighbours
from tonewood.priors.nearest_neighbours import Codebook, FolderStatistics, back_translate
from tonewood.priors.priors import BlendWeights, Priors
from tonewood.scorer import training
from tonewood.scorer.losses import design_polyphase, resample_polyphase
from tonewood.settings import ModelSettings, SearchSettings, TrainingSettings

SETTINGS = ModelSettings()
SPECTRUM, BANDS = SETTINGS.spectrum, SETTINGS.scorer.bands
ROWS, SECONDS = 48, 6
HOP = SPECTRUM.hop / SPECTRUM.rate
TABLES = (
    features.filterbank_matrix,
    features.filterbank_matrix_on,
    masks._interpolation_matrix,
    nearest_neighbours._lifter,
)
Place = Callable[[Tensor], Tensor]


def forget_tables() -> None:
    for table in TABLES:
        table.cache_clear()


@pytest.fixture(params=["meta", "lazy:0"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Brings tensors to a device that is not there; all else that is asked for is made before."""
    for other in {"model", "wave"} & {*request.fixturenames}:
        request.getfixturevalue(other)
    forget_tables()
    if request.param == "meta":
        yield lambda it: it.to("meta")
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield lambda it: it.to(request.param)
    forget_tables()  # what was not there must not be found by others


@pytest.fixture(scope="module")
def wave() -> Tensor:
    return torch.from_numpy(instrument(SECONDS, SPECTRUM.rate, seed=2))


def test_analysis_stays_on_the_device(place: Place, wave: Tensor) -> None:
    there = place(wave)
    rows = band_levels(there, SPECTRUM.rate, BANDS, SPECTRUM)
    other = band_levels(there, 2 * SPECTRUM.rate, BANDS, SPECTRUM)
    assert {rows.device.type, other.device.type} == {there.device.type}
    assert rows.shape[1:] == (ROWS, 100 * SECONDS + 1)
    for levels in (frame_levels(rows), mean_level(rows), filterbank_levels(rows, None)):
        assert levels.device == rows.device
    found = compute_features(there[0], BANDS, SPECTRUM)
    assert found.rows_db.shape == rows.shape[1:]
    assert found.fine_db.shape == (features.N_PITCH_BINS, rows.shape[2])
    assert found.fine_db.device == rows.device
    kernel, stride, reach = design_polyphase(SPECTRUM.rate, 44_100)
    assert resample_polyphase(there, place(kernel.float()), stride, reach).device == there.device


def test_rendering_stays_on_the_device(place: Place, wave: Tensor) -> None:
    there, gain = place(wave), place(torch.zeros(ROWS, 100 * SECONDS + 1))
    field = Mask(gain, center_frequencies(BANDS, SPECTRUM), HOP, SPECTRUM.rate / 2)
    made = stft.prepare_filter(there, SPECTRUM.rate, SPECTRUM)(field.gain_function(gain.device))
    assert (made.device, made.shape) == (there.device, there.shape)
    assert moving_average(gain, 9, 3).device == gain.device


def test_chunk_filter_stays_on_the_device(place: Place, wave: Tensor) -> None:
    there, gain = place(wave), place(torch.zeros(ROWS, 100 * SECONDS + 1))
    field = Mask(gain, center_frequencies(BANDS, SPECTRUM), HOP, SPECTRUM.rate / 2)
    piece = Chunk(there, 0, 1_000, 20_000)
    made = stft.filter_chunk(piece, SPECTRUM.rate, field.gain_function(gain.device), SPECTRUM)
    assert (made.device, made.shape) == (there.device, (there.shape[0], 20_000))


def test_render_feedback_stays_on_the_device(place: Place, wave: Tensor, model: Model) -> None:
    there = place(wave)
    scale = mask_scale(model.scorer, SPECTRUM, "search")
    levels = render_feedback(there[0], scale, SPECTRUM)(place(torch.zeros(ROWS, 300)))
    assert (levels.device, levels.shape) == (there.device, (ROWS, 300))


def on(model: Model, place: Place) -> Model:
    """Scorer, guide and priors of a model on a device."""
    found: Model = carried(model, place)
    return found


def carried(it: Any, place: Place) -> Any:
    """A copy of something, its tensors on a device."""
    if isinstance(it, Tensor):
        return place(it)
    if isinstance(it, nn.Module):
        with _disable_current_modes():
            twin = deepcopy(it)
        for part in twin.modules():
            held: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for named in held:
                for name, value in named.items():
                    if value is not None:
                        there = place(value.detach())
                        named[name] = nn.Parameter(there, False) if named is part._parameters else there
        return twin
    if isinstance(it, Priors | FolderStatistics | Codebook):
        return replace(it, **{f.name: carried(getattr(it, f.name), place) for f in fields(it)})
    if isinstance(it, Model):
        names = ("scorer", "learnt_guide", "learnt_priors")
        return replace(it, **{name: carried(getattr(it, name), place) for name in names})
    return tuple(carried(x, place) for x in it) if type(it) is tuple else it


def test_priors_are_moved_completely(model: Model) -> None:
    device = torch.device("meta")
    there = model.priors.to(device)
    assert there.to(device) is there
    for folder in (there.reference, there.source):
        assert {it.device for it in vars(folder.codebook).values()} == {device}
        assert folder.projection.device == folder.fine_mean.device == device
    assert {it.device for net in there.networks for it in net.parameters()} == {device}
    assert {it.device.type for net in model.priors.networks for it in net.parameters()} == {"cpu"}


def test_priors_stay_on_the_device(place: Place, wave: Tensor, model: Model) -> None:
    own = on(model, place)
    found = compute_features(place(wave)[0], BANDS, SPECTRUM)
    take = own.priors.source.prior_features(found, ReferenceLevels(-30.0, -20.0, 1.0))
    adapted = own.priors.adaptive_masks(take, BlendWeights(0.25, 0.25, 0.25, 0.25))
    means = [None if it is None else it.mean(dim=1) for it in adapted]
    shaped = own.priors.combine(take.activity, adapted, means, BlendWeights(0.25, 0.25, 0.25, 0.25))
    assert (shaped.device, shaped.shape) == (found.rows_db.device, found.rows_db.shape)
    pseudo = back_translate(take, own.priors.reference, own.priors.source, own.priors.hop_ms)
    assert pseudo.rows_db.device == shaped.device


def test_scorer_guide_and_search_stay_on_the_device(
    place: Place, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = on(model, place)
    rows = place(torch.rand(ROWS, 400))
    # What is nowhere has no numbers, and draws here give none; all else of the search goes its way.
    monkeypatch.setattr(search, "_crop_offsets", lambda *_: [0, 100])
    monkeypatch.setattr(search, "objective_values", lambda parts: [1.0] * len(parts))
    for name in ("SGD", "Adam"):
        settings = SearchSettings(steps=2, guide=0.5, score=0.5, optimiser=name)
        problem = SearchProblem(
            own.scorer.score,
            rows,
            rows * 0,
            settings,
            window_frames=own.scorer.crop_frames,
            max_gain_db=12.0,
            guide_energy=lambda levels: own.guide.energy(levels, -20.0),
            render_feedback=lambda mask: rows + mask,
            loudest_db=-10.0,
        )
        *_, last = search_mask(problem, FreeMask(rows * 0, 9), torch.Generator().manual_seed(0))
        assert (last.mask_db.device, last.mask_db.shape) == (rows.device, rows.shape)
    lacking = own.guide.direction(rows[None])
    assert lacking.device == rows.device
    parts = compute_objective(rows.mean(), rows, rows, SearchSettings(), rows.sum())
    assert {it.device for it in parts} == {rows.device}


def test_crops_and_scores_stay_on_the_device(place: Place, model: Model) -> None:
    own = on(model, place)
    crops = place(torch.rand(3, ROWS, 100))
    generator = torch.Generator().manual_seed(0)
    made = training.augment_crops(crops, TrainingSettings(), generator)
    assert (made.device, made.shape) == (crops.device, crops.shape)
    assert own.scorer.logit(made, generator).device == crops.device
