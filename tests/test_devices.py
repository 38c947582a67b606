"""All computations stay on the device of their input, tested without a GPU.

Two devices stand in for a GPU. Tensors on `meta` have a shape but no values, so that no step can read
them. Fake tensors on another device raise an error if they meet tensors on the CPU, as those on a GPU
do (`lazy`, since a torch without CUDA cannot slice fake tensors on `cuda`).
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
ToDevice = Callable[[Tensor], Tensor]


def clear_tables() -> None:
    for table in TABLES:
        table.cache_clear()


@pytest.fixture(params=["meta", "lazy:0"])
def to_device(request: pytest.FixtureRequest) -> Iterator[ToDevice]:
    """Move tensors to a device that does not exist; other fixtures are built before, on the CPU."""
    for other in {"model", "wave"} & {*request.fixturenames}:
        request.getfixturevalue(other)
    clear_tables()
    if request.param == "meta":
        yield lambda item: item.to("meta")
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield lambda item: item.to(request.param)
    clear_tables()  # other tests must not get tensors on this device


@pytest.fixture(scope="module")
def wave() -> Tensor:
    return torch.from_numpy(instrument(SECONDS, SPECTRUM.rate, seed=2))


def test_analysis_stays_on_the_device(to_device: ToDevice, wave: Tensor) -> None:
    on_device = to_device(wave)
    rows = band_levels(on_device, SPECTRUM.rate, BANDS, SPECTRUM)
    other = band_levels(on_device, 2 * SPECTRUM.rate, BANDS, SPECTRUM)
    assert {rows.device.type, other.device.type} == {on_device.device.type}
    assert rows.shape[1:] == (ROWS, 100 * SECONDS + 1)
    for levels in (frame_levels(rows), mean_level(rows), filterbank_levels(rows, None)):
        assert levels.device == rows.device
    result = compute_features(on_device[0], BANDS, SPECTRUM)
    assert result.rows_db.shape == rows.shape[1:]
    assert result.fine_db.shape == (features.N_PITCH_BINS, rows.shape[2])
    assert result.fine_db.device == rows.device
    kernel, stride, reach = design_polyphase(SPECTRUM.rate, 44_100)
    assert resample_polyphase(on_device, to_device(kernel.float()), stride, reach).device == on_device.device


def test_rendering_stays_on_the_device(to_device: ToDevice, wave: Tensor) -> None:
    on_device, gain = to_device(wave), to_device(torch.zeros(ROWS, 100 * SECONDS + 1))
    mask = Mask(gain, center_frequencies(BANDS, SPECTRUM), HOP, SPECTRUM.rate / 2)
    output = stft.prepare_filter(on_device, SPECTRUM.rate, SPECTRUM)(mask.gain_function(gain.device))
    assert (output.device, output.shape) == (on_device.device, on_device.shape)
    assert moving_average(gain, 9, 3).device == gain.device


def test_chunk_filter_stays_on_the_device(to_device: ToDevice, wave: Tensor) -> None:
    on_device, gain = to_device(wave), to_device(torch.zeros(ROWS, 100 * SECONDS + 1))
    mask = Mask(gain, center_frequencies(BANDS, SPECTRUM), HOP, SPECTRUM.rate / 2)
    chunk = Chunk(on_device, 0, 1_000, 20_000)
    output = stft.filter_chunk(chunk, SPECTRUM.rate, mask.gain_function(gain.device), SPECTRUM)
    assert (output.device, output.shape) == (on_device.device, (on_device.shape[0], 20_000))


def test_render_feedback_stays_on_the_device(to_device: ToDevice, wave: Tensor, model: Model) -> None:
    on_device = to_device(wave)
    scale = mask_scale(model.scorer, SPECTRUM, "search")
    levels = render_feedback(on_device[0], scale, SPECTRUM)(to_device(torch.zeros(ROWS, 300)))
    assert (levels.device, levels.shape) == (on_device.device, (ROWS, 300))


def on(model: Model, to_device: ToDevice) -> Model:
    """Return a model whose scorer, guide and priors are on a device."""
    result: Model = move_tensors(model, to_device)
    return result


def move_tensors(item: Any, to_device: ToDevice) -> Any:
    """Return a copy with all tensors on a device."""
    if isinstance(item, Tensor):
        return to_device(item)
    if isinstance(item, nn.Module):
        with _disable_current_modes():
            twin = deepcopy(item)
        for part in twin.modules():
            groups: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for named in groups:
                for name, value in named.items():
                    if value is not None:
                        on_device = to_device(value.detach())
                        named[name] = (
                            nn.Parameter(on_device, False) if named is part._parameters else on_device
                        )
        return twin
    if isinstance(item, Priors | FolderStatistics | Codebook):
        return replace(item, **{f.name: move_tensors(getattr(item, f.name), to_device) for f in fields(item)})
    if isinstance(item, Model):
        names = ("scorer", "learnt_guide", "learnt_priors")
        return replace(item, **{name: move_tensors(getattr(item, name), to_device) for name in names})
    return tuple(move_tensors(x, to_device) for x in item) if type(item) is tuple else item


def test_priors_are_moved_completely(model: Model) -> None:
    device = torch.device("meta")
    on_device = model.priors.to(device)
    assert on_device.to(device) is on_device
    for folder in (on_device.reference, on_device.source):
        assert {item.device for item in vars(folder.codebook).values()} == {device}
        assert folder.projection.device == folder.fine_mean.device == device
    assert {item.device for net in on_device.networks for item in net.parameters()} == {device}
    assert {item.device.type for net in model.priors.networks for item in net.parameters()} == {"cpu"}


def test_priors_stay_on_the_device(to_device: ToDevice, wave: Tensor, model: Model) -> None:
    placed = on(model, to_device)
    result = compute_features(to_device(wave)[0], BANDS, SPECTRUM)
    take = placed.priors.source.prior_features(result, ReferenceLevels(-30.0, -20.0, 1.0))
    adapted = placed.priors.adaptive_masks(take, BlendWeights(0.25, 0.25, 0.25, 0.25))
    means = [None if item is None else item.mean(dim=1) for item in adapted]
    shaped = placed.priors.combine(take.activity, adapted, means, BlendWeights(0.25, 0.25, 0.25, 0.25))
    assert (shaped.device, shaped.shape) == (result.rows_db.device, result.rows_db.shape)
    pseudo = back_translate(take, placed.priors.reference, placed.priors.source, placed.priors.hop_ms)
    assert pseudo.rows_db.device == shaped.device


def test_scorer_guide_and_search_stay_on_the_device(
    to_device: ToDevice, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = on(model, to_device)
    rows = to_device(torch.rand(ROWS, 400))
    # Tensors without values have no random offsets and no scores; the rest of the search is as usual.
    monkeypatch.setattr(search, "_crop_offsets", lambda *_: [0, 100])
    monkeypatch.setattr(search, "objective_values", lambda parts: [1.0] * len(parts))
    for name in ("SGD", "Adam"):
        settings = SearchSettings(steps=2, guide=0.5, score=0.5, optimiser=name)
        problem = SearchProblem(
            placed.scorer.score,
            rows,
            rows * 0,
            settings,
            window_frames=placed.scorer.crop_frames,
            max_gain_db=12.0,
            guide_energy=lambda levels: placed.guide.energy(levels, -20.0),
            render_feedback=lambda mask: rows + mask,
            loudest_db=-10.0,
        )
        *_, last = search_mask(problem, FreeMask(rows * 0, 9), torch.Generator().manual_seed(0))
        assert (last.mask_db.device, last.mask_db.shape) == (rows.device, rows.shape)
    direction = placed.guide.direction(rows[None])
    assert direction.device == rows.device
    parts = compute_objective(rows.mean(), rows, rows, SearchSettings(), rows.sum())
    assert {item.device for item in parts} == {rows.device}


def test_crops_and_scores_stay_on_the_device(to_device: ToDevice, model: Model) -> None:
    placed = on(model, to_device)
    crops = to_device(torch.rand(3, ROWS, 100))
    generator = torch.Generator().manual_seed(0)
    output = training.augment_crops(crops, TrainingSettings(), generator)
    assert (output.device, output.shape) == (crops.device, crops.shape)
    assert placed.scorer.logit(output, generator).device == crops.device
