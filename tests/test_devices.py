"""Scorer and loss stay on the device of their input, tested without a GPU.

Two devices stand in for a GPU. Tensors on `meta` have a shape but no values, so that no step can read
them. Fake tensors on another device raise an error if they meet tensors on the CPU, as those on a GPU
do (`lazy`, since a torch without CUDA cannot slice fake tensors on `cuda`).
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from tests.conftest import instrument
from tonewood.model.losses import ScorerLoss
from tonewood.model.model import Model
from tonewood.scorer import training
from tonewood.scorer.network import Scorer
from tonewood.settings import TrainingSettings

RATE, SECONDS = 44_100, 2
ToDevice = Callable[[Tensor], Tensor]
AnyModule = TypeVar("AnyModule", bound=nn.Module)


@pytest.fixture(scope="module")
def waves() -> Tensor:
    return torch.from_numpy(instrument(SECONDS, RATE, seed=2))[None]


@pytest.fixture
def loss(model: Model) -> ScorerLoss:
    return ScorerLoss(model.scorer, RATE)


@pytest.fixture(params=["meta", "lazy:0"])
def to_device(request: pytest.FixtureRequest) -> Iterator[ToDevice]:
    """Move tensors to a device that does not exist; other fixtures are built before, on the CPU."""
    for other in {"model", "waves", "loss"} & {*request.fixturenames}:
        request.getfixturevalue(other)
    if request.param == "meta":
        yield lambda item: item.to("meta")
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield lambda item: item.to(request.param)


def move(module: AnyModule, to_device: ToDevice) -> AnyModule:
    """Return a copy of a network on a device."""
    with _disable_current_modes():
        twin = deepcopy(module)
    for part in twin.modules():
        groups: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for named in groups:
            for name, value in named.items():
                if value is not None:
                    moved = to_device(value.detach())
                    named[name] = nn.Parameter(moved, False) if named is part._parameters else moved
    return twin


def test_crops_and_scores_stay_on_the_device(model: Model, to_device: ToDevice) -> None:
    with _disable_current_modes():
        on_cpu = model.scorer.as_tensors()
    weights = {name: to_device(value) for name, value in on_cpu.weights.items()}
    scorer = Scorer(on_cpu.settings, on_cpu.spectrum, weights)
    crops = to_device(torch.rand(3, 48, 100))
    generator = torch.Generator().manual_seed(0)
    output = training.augment_crops(crops, TrainingSettings(), generator)
    assert (output.device, output.shape) == (crops.device, crops.shape)
    assert scorer.logit(output, generator).device == crops.device


def test_loss_stays_on_the_device(loss: ScorerLoss, waves: Tensor, to_device: ToDevice) -> None:
    placed, moved = move(loss, to_device), to_device(waves)
    # Without `forward`, because autocast does not know these devices.
    rows = placed.rows(moved)
    assert (rows.device, rows.shape) == (moved.device, (1, 48, 100 * SECONDS + 1))
    assert placed.scorer().score(rows).device == moved.device
