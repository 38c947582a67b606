"""Several reference folders, each with its weight."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch

import tonewood
from campaigns.harness.training import TINY_TRAINING, set_options
from tonewood.data.dataset import TrainingRecording, WeightedFolder, take_weights
from tonewood.data.loading import check_folder_weights, load_sides, parse_weighted_folder, side_display_name
from tonewood.dsp.features import Features
from tonewood.errors import CallError, FolderError
from tonewood.model.model import Model
from tonewood.priors.folder_fitting import fit_folder_statistics
from tonewood.scorer.training import draw_crops
from tonewood.settings import ModelSettings, NeighbourSettings
from tonewood.training.pipeline import train_model

Play = Callable[..., Any]


class Three(NamedTuple):
    warm: Path
    bright: Path
    source: Path


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, play: Play) -> Three:
    """Two references with different formants, one twice as long, and a source."""
    root = tmp_path_factory.mktemp("three")
    for side, formant, count in (("warm", 500, 4), ("bright", 5_000, 2), ("source", 2_000, 4)):
        for number in range(count):
            path = root / side / f"take{number}.wav"
            path.parent.mkdir(exist_ok=True)
            seed = number + 10 * formant
            soundfile.write(path, play(17, formant_hz=formant, seed=seed)[0], 16_000)
    return Three(root / "warm", root / "bright", root / "source")


def quick(small: Callable[..., ModelSettings]) -> ModelSettings:
    settings = small(judge=False, steps=5)
    return settings.replace(guide=dict(steps=20, width=8), priors=dict(network=dict(steps=20)))


def loaded(sides: list[WeightedFolder], source: Path) -> list[TrainingRecording]:
    steps = load_sides(sides, source, ModelSettings())
    while True:
        try:
            next(steps)
        except StopIteration as end:
            actual: list[TrainingRecording] = end.value["reference"]
            return actual


def test_folder_weight_is_independent_of_its_duration(three: Three) -> None:
    takes = loaded([WeightedFolder(three.warm, 2), WeightedFolder(three.bright, 1)], three.source)
    shares = take_weights(takes)
    assert shares is not None
    counts = dict.fromkeys(("warm", "bright"), 0.0)
    for take, share in zip(takes, shares, strict=True):
        counts[take.path.parent.name] += share * take.seconds
    assert counts["warm"] == pytest.approx(2 * counts["bright"])
    assert sum(counts.values()) == pytest.approx(sum(take.seconds for take in takes))
    assert {take.group.split("/")[0] for take in takes} == {"1 warm", "2 bright"}
    assert len({take.group for take in takes}) == 6


def test_a_recording_in_two_of_the_folders_counts_once(three: Three, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    copy = tmp_path / "more" / "copy.wav"
    copy.write_bytes((three.warm / "take0.wav").read_bytes())
    takes = loaded([WeightedFolder(three.warm), WeightedFolder(tmp_path / "more")], three.source)
    assert {take.path.parent for take in takes} == {three.warm}
    assert take_weights(takes) == pytest.approx([1.0] * 4)


def test_weights_apply_to_crops() -> None:
    takes = [np.zeros((3, 200), np.float32), np.ones((3, 200), np.float32)]
    crops = draw_crops(takes, 4_000, 20, torch.Generator().manual_seed(0), [3.0, 1.0])
    assert crops.mean().item() == pytest.approx(0.25, abs=0.03)


def test_weights_apply_to_codebook_and_means() -> None:
    rng = np.random.default_rng(0)

    def features(level: float) -> Features:
        rows = level * np.linspace(-1, 1, 48)[:, None] + rng.standard_normal((48, 400))
        return Features(rows.astype(np.float32), rng.standard_normal((144, 400)).astype(np.float32))

    takes = [features(6.0), features(-6.0)]
    settings = NeighbourSettings(frames=200)
    shares = [1.9, 0.1]
    existing, _ = fit_folder_statistics(takes, takes, settings, torch.Generator().manual_seed(1), shares)
    plain, _ = fit_folder_statistics(takes, takes, settings, torch.Generator().manual_seed(1))
    chosen = (existing.codebook.take_index == 0).mean()
    assert chosen == pytest.approx(0.95, abs=0.05)
    assert (plain.codebook.take_index == 0).mean() == pytest.approx(0.5, abs=0.15)
    slope = (existing.row_mean[-1] - existing.row_mean[0]).item()
    assert slope == pytest.approx(0.9 * 12, abs=0.7)


def test_masks_approach_the_heavier_reference(three: Three, small: Callable[..., ModelSettings]) -> None:
    masks = []
    for warm, bright in ((30.0, 1.0), (1.0, 30.0)):
        sides = [WeightedFolder(three.warm, warm), WeightedFolder(three.bright, bright)]
        # Believed in full: two unlike references are few sessions, which doubt would level.
        settings = quick(small).replace(priors=dict(doubt=0))
        *_, model = train_model(sides, three.source, settings)
        assert isinstance(model, Model)
        masks.append(model.priors.static_db)
        assert model.card.reference.name == f"warm:{warm:g} + bright:{bright:g}"
        assert model.card.reference.takes == 6
    slopes = [np.polyfit(np.arange(48), mask, 1)[0] for mask in masks]
    assert slopes[1] - slopes[0] > 0.05  # a row: several dB from end to end


def test_python_takes_a_mapping(three: Three, small: Callable[..., ModelSettings], tmp_path: Path) -> None:
    wrong = {three.warm: 1.0, three.bright: 0.0}
    with pytest.raises(CallError, match="bright has weight 0; give one above 0"):
        tonewood.train(wrong, three.source)
    with pytest.raises(CallError, match="no reference is given"):
        tonewood.train({}, three.source)
    with pytest.raises(CallError, match="given as both folders"):
        tonewood.train({three.warm: 1, three.source: 1}, three.source)


def test_the_command_line_takes_weights(three: Three, tmp_path: Path, run: Callable[..., Any]) -> None:
    out = tmp_path / "m.tonewood"
    more = set_options(*TINY_TRAINING, "training.steps=2")
    call = ["train", "--reference", f"{three.warm}:2", "--reference", three.bright]
    ran = run(*call, "--source", three.source, "-o", out, "--no-judge", "--json", *more)
    assert ran.code == 0, ran.err
    assert ran.objects[0]["card"]["reference"]["name"] == "warm:2 + bright:1"
    assert "warm:2 + bright:1" in run("info", out).out


@pytest.mark.parametrize(
    ("references", "code", "reason"),
    [
        (("warm:0", "bright"), 2, "warm has weight 0; give one above 0"),
        (("warm:-1",), 2, "warm has weight -1; give one above 0"),
        (("warm:nan",), 2, "warm has weight nan"),
        (("warm", "warm:2"), 2, "is given twice as a reference: give it one weight"),
        (("warm", "source"), 2, "is given as both folders"),
        (("warm:much",), 1, "warm:much does not exist"),
        (("warm", "nowhere"), 1, "nowhere does not exist"),
    ],
)
def test_invalid_weights_are_refused(
    three: Three,
    tmp_path: Path,
    run: Callable[..., Any],
    references: tuple[str, ...],
    code: int,
    reason: str,
) -> None:
    named_ = [word for reference in references for word in ("--reference", three.warm.with_name(reference))]
    ran = run("train", *named_, "--source", three.source, "-o", tmp_path / "m.tonewood")
    assert ran.code == code, ran.err
    assert reason in ran.err
    assert ran.err.count("\n") == 1


def test_folder_name_may_contain_a_colon(tmp_path: Path) -> None:
    odd = tmp_path / "takes:2"
    odd.mkdir()
    assert parse_weighted_folder(str(odd)) == WeightedFolder(odd, 1.0)
    assert parse_weighted_folder(f"{odd}:3") == WeightedFolder(odd, 3.0)
    assert parse_weighted_folder("C:\\takes") == WeightedFolder(Path("C:\\takes"))
    assert side_display_name([WeightedFolder(odd, 1.5)]) == "takes:2:1.5"
    check_folder_weights([WeightedFolder(odd)])


def test_short_weighted_folders_are_named_together(three: Three, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    wave, rate = soundfile.read(three.warm / "take0.wav", frames=16_000)
    soundfile.write(short / "a.wav", wave, rate)
    with pytest.raises(FolderError, match=r"short:1 \+ bright:1 contains 35\.0 s"):
        loaded([WeightedFolder(short), WeightedFolder(three.bright)], three.source)
