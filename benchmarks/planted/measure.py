"""Plant one cause: recordings, folders, model, and the result in the explanation's table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planted.instrument import CAUSES, PLAIN, RATE, phrase
from tonewood.audio_io.libsndfile import AudioFormat
from tonewood.audio_io.reader import write_recording
from tonewood.explanation.note_statistics import (
    ConfidenceInterval,
    PartWeight,
    compute_part_weights,
    mean_intervals,
)
from tonewood.explanation.pipeline import OCTAVE_CENTERS_HZ, PART_NAMES, Explanation, explain_recording
from tonewood.model.model import Model
from tonewood.settings import ModelSettings
from tonewood.training.pipeline import train_model

SIDES = {"reference": "with", "source": "without"}
PART = {"vibrato": "vibrato", "attack": "attack"}
OCTAVE = 1_000  # Hz, where the resonance lies


@dataclass(frozen=True)
class Finding:
    """Result of one cause on one side.

    Parameters
    ----------
    ratio : float
        Evidence per second (or per octave) where the cause is, to that of all the rest.
    """

    cause: str
    side: str
    method: str
    accuracy: float
    parts: list[PartWeight]
    octaves: list[ConfidenceInterval]
    ratio: float


def settings(seed: int) -> ModelSettings:
    """Return settings with a normal scorer and little of what `explain` does not use."""
    return ModelSettings().replace(
        training=dict(seed=seed, steps=800, patience=12, judge=False),
        priors=dict(neighbours=dict(frames=1_024, codes=64), network=dict(steps=20, width=4)),
        guide=dict(steps=20, width=4),
    )


def write_takes(folder: Path, cause: str, takes: range, seconds: float) -> None:
    """Write the same phrases by both instruments; only the cause differs."""
    for name, instrument in (("with", CAUSES[cause]), ("without", PLAIN)):
        (folder / name).mkdir(parents=True)
        for take in takes:
            wave = phrase(instrument, seconds, take)
            form = AudioFormat("FLAC", "PCM_16")
            write_recording(folder / name / f"{take:03}.flac", wave[None], RATE, form)


def learn(folder: Path, model_settings: ModelSettings) -> Model:
    """Train the model."""
    *_, model = train_model(folder / "with", folder / "without", model_settings, name=folder.name)
    assert isinstance(model, Model)
    return model


def find(
    model: Model, cause: str, takes: range, seconds: float, methods: Sequence[str] = ("cam",)
) -> Iterator[Finding]:
    """Explain phrases that are not in the training data."""
    frame_seconds = model.settings.spectrum.hop / model.settings.spectrum.rate
    for method in methods:
        for side, instrument in (("reference", CAUSES[cause]), ("source", PLAIN)):
            explanations = [
                explain_recording(
                    phrase(instrument, seconds, take)[None], RATE, model,
                    side=side, method=method, draws=1,
                )
                for take in takes
            ]  # fmt: skip
            rng = np.random.default_rng(0)
            sums = [explanation.part_sums(frame_seconds) for explanation in explanations]
            yield Finding(
                cause=cause,
                side=side,
                method=method,
                accuracy=model.card.scorer.accuracy,
                parts=compute_part_weights(PART_NAMES, sums, rng, "steady"),
                octaves=mean_intervals(np.stack([explanation.octaves for explanation in explanations]), rng),
                ratio=_ratio(cause, explanations, frame_seconds),
            )


def _ratio(cause: str, explanations: Sequence[Explanation], frame_seconds: float) -> float:
    if cause == "resonance":
        levels = np.abs(np.mean([explanation.octaves for explanation in explanations], axis=0))
        planted = np.array(OCTAVE_CENTERS_HZ) == OCTAVE
        return float(levels[planted].mean() / levels[~planted].mean())
    sums = [explanation.part_sums(frame_seconds) for explanation in explanations]
    seconds = np.sum([recording.seconds for recording in sums], axis=0)
    evidence = np.sum([recording.evidence for recording in sums], axis=0)
    planted = np.array(PART_NAMES) == PART[cause]
    if seconds[planted].sum() == 0:  # straight notes have no vibrato to weigh
        return float("nan")
    rest = ~planted & (np.array(PART_NAMES) != "quiet")
    inside, outside = (evidence[parts].sum() / seconds[parts].sum() for parts in (planted, rest))
    return float(inside / outside) if outside > 0 else float("inf")
