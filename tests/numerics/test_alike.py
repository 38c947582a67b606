"""Results do not depend on the batch or on the number of threads, and hardly on bf16."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from unittest import mock

import numpy as np
import soundfile
import torch
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import tonewood
from campaigns.harness.numerics.law import SEEDS, law
from tests.numerics.sounds import (
    NAMES,
    Samples,
    bundled,
    decibels,
    enhanced,
    noise,
    notes,
    recording,
    relative,
)
from tests.numerics.test_scoring_twins import listener
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.runner import run_batch
from tonewood.batch.tasks import EnhanceTask
from tonewood.enhancement.output_files import plan_jobs
from tonewood.enhancement.pipeline import scorer_input
from tonewood.settings import EnhanceSettings

Result = TypeVar("Result")
NOTHING = nullcontext()


def clips(seed: int, count: int, seconds: float = 0.6) -> Samples:
    """Clips [clip, sample], one of them silent and one loud."""
    output = np.concatenate([notes(seed + k, seconds) for k in range(count)])
    output[0] *= 5
    output[-1] = 0
    return output


def rows(seed: int, count: int, model: str) -> Samples:
    return scorer_input(clips(seed, count), bundled(model))


@law(
    "Scores of a batch: of each clip alone",
    within=2e-6,
    unit="of 1",
    examples=6,
    seed=SEEDS,
    count=st.integers(2, 9),
    model=NAMES,
    judge=st.booleans(),
)
def test_scores_of_a_batch(seed: int, count: int, model: str, judge: bool) -> float:
    scorer, batch = listener(model, judge), rows(seed, count, model)
    alone = np.concatenate([scorer.score(item[None]) for item in batch])
    return float(np.abs(scorer.score(batch) - alone).max())


@law(
    "The guide's energy of a batch: of each clip alone",
    within=5e-6,
    unit="of the largest",
    examples=5,
    seed=SEEDS,
    count=st.integers(2, 6),
    model=NAMES,
)
def test_energies_of_a_batch(seed: int, count: int, model: str) -> float:
    guide, batch = bundled(model).guide, rows(seed, count, model)
    alone = np.concatenate([guide.energy(item[None]) for item in batch])
    return relative(guide.energy(batch), alone)


@law(
    "Loss over a batch of waveforms, and its gradient: of each alone",
    within=1e-4,
    unit="of the largest",
    examples=4,
    seed=SEEDS,
    rate=st.sampled_from([16_000, 22_050]),
    model=NAMES,
)
def test_losses_of_a_batch(seed: int, rate: int, model: str) -> float:
    loss = tonewood.NeuralLoss(bundled(model), rate, reduction="none")
    waves = torch.from_numpy(np.stack([notes(seed + k, 0.5, rate, 2) for k in range(3)]))

    def value_and_gradient(waves: torch.Tensor) -> tuple[Samples, Samples]:
        inputs = waves.clone().requires_grad_()
        value = loss(inputs)
        (gradient,) = torch.autograd.grad(value.sum(), inputs)
        return value.detach().numpy(), gradient.numpy()

    together, alone = value_and_gradient(waves), [value_and_gradient(item[None]) for item in waves]
    values = np.concatenate([item[0] for item in alone])
    pairs = ((together[1][k], alone[k][1][0]) for k in range(3))
    return max(float(np.abs(together[0] - values).max()), *(relative(a, b) for a, b in pairs))


@law("A folder: each file as if alone, bytes and all", within=0, examples=1)
def test_a_folder_is_its_files() -> float:
    settings = EnhanceSettings(force=True)
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "in").mkdir()
        for number, subtype in enumerate(("PCM_16", "PCM_24", "FLOAT")):
            wave = recording(0.8, first=2.0 * number)
            soundfile.write(root / "in" / f"{number}.wav", wave.T, 44_100, subtype)
        paths = sorted((root / "in").iterdir())
        count = _enhance(root / "in", root / "together", settings)
        for path in paths:
            count += _enhance(path, root / "alone", settings)
        assert count == 6
        differ = [
            (root / "together" / path.name).read_bytes() != (root / "alone" / path.name).read_bytes()
            for path in paths
        ]
    return float(sum(differ))


def _enhance(path: Path, out: Path, settings: EnhanceSettings) -> int:
    """Enhance a file or folder; return the number of outputs."""
    out.mkdir(exist_ok=True)
    events = run_batch(plan_jobs([path], out), EnhanceTask(settings), bundled("cello"))
    return sum(isinstance(event, FileEnhanced) for event in events)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set the number of threads of torch, and of NumPy's matrix products."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(number)
        with threadpool_limits(number, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


def cores(number: int) -> AbstractContextManager[object]:
    """Set the number of cores that Tonewood uses."""
    return mock.patch.dict(os.environ, {"TONEWOOD_CORES": str(number)})


@law(
    "TONEWOOD_CORES 1, 2 or 5: output of an enhancement",
    within=0,
    examples=2,
    most=20,
    seed=SEEDS,
    number=st.sampled_from([2, 5]),
    rate=st.sampled_from([16_000, 44_100]),
    model=NAMES,
)
def test_cores(seed: int, number: int, rate: int, model: str) -> float:
    """The recording is longer than 256 frames, so rendering is divided among the cores."""
    wave = notes(seed, 3.2, rate, channels=2)
    with cores(1):
        alone = enhanced(wave, rate, model)
    with cores(number):
        spread = enhanced(wave, rate, model)
    assert spread.certificate == alone.certificate
    return relative(spread.samples, alone.samples)


@law(
    "One thread of matrix products or two: output of an enhancement",
    within=-90,
    unit="dB re the output",
    examples=1,
    most=10,
    seed=SEEDS,
    model=NAMES,
)
def test_threads(seed: int, model: str) -> float:
    """Sums are divided differently, so a few cells of the mask round to the next step."""
    wave = notes(seed, 2.4)
    with threads(1):
        one = enhanced(wave, 16_000, model)
    with threads(2):
        two = enhanced(wave, 16_000, model)
    assert np.abs(one.mask.gain_db - two.mask.gain_db).max() <= 0.0021
    return decibels(two.samples, one.samples)


@law(
    "One torch thread or two: score, and gradient of the loss",
    within=5e-6,
    unit="of the largest",
    examples=2,
    most=20,
    seed=SEEDS,
    model=NAMES,
)
def test_threads_of_a_loss(seed: int, model: str) -> float:
    results = []
    for number in (1, 2):
        with threads(number):
            loss = tonewood.NeuralLoss(bundled(model), 16_000)
            results.append(value_and_gradient_of(loss, notes(seed, 1.5)))
    return relative(results[1], results[0])


def value_and_gradient_of(
    loss: tonewood.NeuralLoss, wave: Samples, around: AbstractContextManager[object] = NOTHING
) -> Samples:
    """Return the gradient of a loss by its waveform, then the loss; the forward pass runs in `around`."""
    inputs = torch.from_numpy(wave[None]).requires_grad_()
    with around:
        value = loss(inputs)
    (gradient,) = torch.autograd.grad(value, inputs)
    return np.append(gradient.numpy(), np.float32(value.item()))


def in_both_precisions(work: Callable[[], Result]) -> tuple[Result, Result]:
    """Return the results in single precision and under autocast to bf16."""
    plain = work()
    with torch.autocast("cpu", torch.bfloat16):
        return plain, work()


@law(
    "Score under autocast to bf16",
    within=0.03,
    unit="of 1",
    examples=8,
    seed=SEEDS,
    model=NAMES,
    judge=st.booleans(),
)
def test_scores_in_bf16(seed: int, model: str, judge: bool) -> float:
    scorer, batch = listener(model, judge).as_tensors(), torch.from_numpy(rows(seed, 4, model)[:-1])
    with torch.no_grad():
        plain, half = in_both_precisions(lambda: scorer.score(batch).float())
    return float((plain - half).abs().max())


@law(
    "Gradient of the logit by the rows under autocast to bf16, as vectors",
    within=0.05,
    unit="of its length",
    examples=6,
    seed=SEEDS,
    model=NAMES,
    judge=st.booleans(),
)
def test_gradients_in_bf16(seed: int, model: str, judge: bool) -> float:
    scorer, batch = listener(model, judge).as_tensors(), torch.from_numpy(rows(seed, 4, model)[:-1])

    def gradient() -> torch.Tensor:
        inputs = batch.clone().requires_grad_()
        (gradients,) = torch.autograd.grad(scorer.logit(inputs).sum(), inputs)
        return gradients.flatten(1)

    plain, half = in_both_precisions(gradient)
    return float(((plain - half).norm(dim=1) / plain.norm(dim=1)).max())


@law(
    "Losses leave autocast outside: value and gradient after a forward pass under bf16's",
    within=0,
    examples=3,
    seed=SEEDS,
    model=NAMES,
)
def test_losses_in_bf16(seed: int, model: str) -> float:
    loss, wave = tonewood.NeuralLoss(bundled(model), 16_000), noise(seed, (1, 9_000))
    half = value_and_gradient_of(loss, wave, torch.autocast("cpu", torch.bfloat16))
    return relative(half, value_and_gradient_of(loss, wave))
