"""Every step of the method stays on the device of what it is given, without a GPU to prove it on.

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
from tonewood.files.modelfile import Model
from tonewood.masking import mask as masks
from tonewood.masking import neighbours, optimise
from tonewood.masking.mask import Field, smoothed
from tonewood.masking.neighbours import Codebook, Folder, imitated
from tonewood.masking.objective import objective
from tonewood.masking.optimise import Cells, search
from tonewood.masking.priors import Priors, Weights
from tonewood.scoring import training
from tonewood.settings import ModelSettings, SearchSettings, TrainingSettings
from tonewood.signal import bands, features, spectrum
from tonewood.signal.bands import band_levels, centres_hz, frame_levels, levels_of, mean_level
from tonewood.signal.features import Levels, analyse
from tonewood.signal.resample import phases, resampled

SETTINGS = ModelSettings()
SPECTRUM, BANDS = SETTINGS.spectrum, SETTINGS.scorer.bands
ROWS, SECONDS = 48, 6
HOP = SPECTRUM.hop / SPECTRUM.rate
TABLES = (bands.matrix, bands.matrix_on, masks._row_weights, neighbours._lifter)
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


def test_analysis(place: Place, wave: Tensor) -> None:
    there = place(wave)
    rows = band_levels(there, SPECTRUM.rate, BANDS, SPECTRUM)
    other = band_levels(there, 2 * SPECTRUM.rate, BANDS, SPECTRUM)
    assert {rows.device.type, other.device.type} == {there.device.type}
    assert rows.shape[1:] == (ROWS, 100 * SECONDS + 1)
    for levels in (frame_levels(rows), mean_level(rows), levels_of(rows, None)):
        assert levels.device == rows.device
    found = analyse(there[0], BANDS, SPECTRUM)
    assert found.rows_db.shape == rows.shape[1:]
    assert found.fine_db.shape == (features.PITCHES, rows.shape[2])
    assert found.fine_db.device == rows.device
    kernel, stride, reach = phases(SPECTRUM.rate, 44_100)
    assert resampled(there, place(kernel.float()), stride, reach).device == there.device


def test_rendering_and_what_is_heard_of_it(place: Place, wave: Tensor) -> None:
    there, gain = place(wave), place(torch.zeros(ROWS, 100 * SECONDS + 1))
    field = Field(gain, centres_hz(BANDS, SPECTRUM), HOP, SPECTRUM.rate / 2)
    made = spectrum.refiltering(there, SPECTRUM.rate, SPECTRUM)(field.at)
    assert (made.device, made.shape) == (there.device, there.shape)
    assert smoothed(gain, 9, 3).device == gain.device


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
            for name, value in [*part.named_parameters(recurse=False)]:
                part._parameters[name] = nn.Parameter(place(value.detach()), requires_grad=False)
            for name, buffer in [*part.named_buffers(recurse=False)]:
                part._buffers[name] = place(buffer)
        return twin
    if isinstance(it, Priors | Folder | Codebook):
        return replace(it, **{f.name: carried(getattr(it, f.name), place) for f in fields(it)})
    if isinstance(it, Model):
        names = ("scorer", "learnt_guide", "learnt_priors")
        return replace(it, **{name: carried(getattr(it, name), place) for name in names})
    return tuple(carried(x, place) for x in it) if type(it) is tuple else it


def test_priors_are_brought_there_whole(model: Model) -> None:
    device = torch.device("meta")
    there = model.priors.on(device)
    assert there.on(device) is there
    for folder in (there.reference, there.source):
        assert {it.device for it in vars(folder.codebook).values()} == {device}
        assert folder.projection.device == folder.fine_mean.device == device
    assert {it.device for net in there.networks for it in net.parameters()} == {device}
    assert {it.device.type for net in model.priors.networks for it in net.parameters()} == {"cpu"}


def test_priors(place: Place, wave: Tensor, model: Model) -> None:
    own = on(model, place)
    found = analyse(place(wave)[0], BANDS, SPECTRUM)
    take = own.priors.source.take(found, Levels(-30.0, -20.0, 1.0))
    adapted = own.priors.adapted(take, Weights(0.25, 0.25, 0.25, 0.25))
    means = [None if it is None else it.mean(dim=1) for it in adapted]
    shaped = own.priors.shaped(take.present, adapted, means, Weights(0.25, 0.25, 0.25, 0.25))
    assert (shaped.device, shaped.shape) == (found.rows_db.device, found.rows_db.shape)
    pseudo = imitated(take, own.priors.reference, own.priors.source, own.priors.hop_ms)
    assert pseudo.rows_db.device == shaped.device


def test_scorer_guide_and_search(
    place: Place, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = on(model, place)
    rows = place(torch.rand(ROWS, 400))
    # What is nowhere has no numbers, and draws here give none; all else of the search goes its way.
    monkeypatch.setattr(optimise, "_starts", lambda *_: [0, 100])
    monkeypatch.setattr(optimise, "told", lambda parts: [1.0] * len(parts))
    for name in ("SGD", "Adam"):
        settings = SearchSettings(steps=2, guide=0.5, score=0.5, optimiser=name)
        *_, last = search(
            own.scorer.score,
            rows,
            Cells(rows * 0, 9),
            rows * 0,
            settings,
            window_frames=own.scorer.crop_frames,
            max_gain_db=12.0,
            generator=torch.Generator().manual_seed(0),
            energy=lambda it: own.guide.energy(it, -20.0),
            listen=lambda mask: rows + mask,
            loudest_db=-10.0,
        )
        assert (last.mask_db.device, last.mask_db.shape) == (rows.device, rows.shape)
    lacking = own.guide.direction(rows[None])
    assert lacking.device == rows.device
    parts = objective(rows.mean(), rows, rows, SearchSettings(), rows.sum())
    assert {it.device for it in parts} == {rows.device}


def test_crops_and_scores(place: Place, model: Model) -> None:
    own = on(model, place)
    crops = place(torch.rand(3, ROWS, 100))
    generator = torch.Generator().manual_seed(0)
    made = training.augmented(crops, TrainingSettings(), generator)
    assert (made.device, made.shape) == (crops.device, crops.shape)
    assert own.scorer.logit(made, generator).device == crops.device
