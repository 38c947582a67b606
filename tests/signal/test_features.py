import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.signal.bands import band_levels
from tonewood.signal.features import Features, analyse, fine_structure
from tonewood.signal.spectrum import Floats, filtered

PAPER = SpectrumSettings()


def partials(fundamental: float, seconds: float = 1.0, slope: float = 1.0) -> Tensor:
    """A sawtooth-like tone over a little noise, as a bowed string gives."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    count = int(7_500 / fundamental)
    wave = sum(np.sin(2 * np.pi * fundamental * k * time + k) / k**slope for k in range(1, count))
    noise = np.random.default_rng(1).standard_normal(time.size)
    return torch.from_numpy((0.1 * wave + 1e-2 * noise).astype(np.float32))


@pytest.mark.parametrize("quarter_tone", [24, 47, 70, 101, 120])
def test_a_tone_peaks_at_its_quarter_tone(quarter_tone: int) -> None:
    frequency = 55 * 2 ** (quarter_tone / 24)
    wave = torch.from_numpy(0.3 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000))
    fine = fine_structure(wave, PAPER, 101)
    assert fine.shape == (144, 101)
    assert abs(int(fine[:, 50].argmax()) - quarter_tone) <= 1


def test_partials_of_a_note_stand_out() -> None:
    fine = fine_structure(partials(220), PAPER, 101)[:, 50]
    for partial in (1, 2, 3, 4):
        place = round(24 * np.log2(220 * partial / 55))
        assert fine[place] > 6
        assert fine[place] > fine[place - 6] + 6


@pytest.mark.parametrize("gain_db", [-20, 20])
def test_gain_changes_nothing(gain_db: float) -> None:
    wave = partials(196)
    fine = [fine_structure(w, PAPER, 101) for w in (wave, wave * 10 ** (gain_db / 20))]
    change = fine[0] - fine[1]
    assert change.abs().max() < 0.5
    assert change.square().mean().sqrt() < 0.05


def test_a_broad_eq_changes_little_and_another_note_changes_much() -> None:
    """What a colour of ±6 dB every three octaves does stays small beside what pitch does."""
    wave = partials(196)

    def waves(hz: Floats, seconds: Floats) -> NDArray[np.float32]:
        gain = 6 * np.sin(2 * np.pi / 3 * np.log2(np.clip(hz, 20, None) / 800))
        return np.repeat(gain[:, None], len(seconds), axis=1).astype(np.float32)

    brighter = torch.from_numpy(filtered(wave.numpy()[None], 16_000, waves, PAPER)[0])
    inner = slice(10, 90)
    plain, bright, other = (
        fine_structure(w, PAPER, 101)[24:130, inner] for w in (wave, brighter, partials(233))
    )
    by_eq = (plain - bright).square().mean().sqrt()
    by_pitch = (plain - other).square().mean().sqrt()
    assert by_eq < 1
    assert by_pitch > 15 * by_eq


def test_nothing_falls_below_its_floor() -> None:
    assert fine_structure(partials(110), PAPER, 101).min() >= -10
    assert fine_structure(torch.zeros(16_000), PAPER, 101).abs().max() < 1e-4


@pytest.mark.parametrize("samples", [4_000, 4_001, 4_160, 16_000, 33_333])
def test_as_many_frames_as_the_rows_have(samples: int) -> None:
    wave = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    bands = BandSettings()
    features = analyse(wave, bands, PAPER)
    assert features.rows_db.shape == (48, samples // 160 + 1)
    assert features.fine_db.shape == (144, samples // 160 + 1)
    assert features.fine_db.isfinite().all()
    assert torch.equal(features.rows_db, band_levels(wave, 16_000, bands, PAPER))


def test_frames_past_the_end_repeat_the_last() -> None:
    wave = partials(220)
    fine, longer = (fine_structure(wave, PAPER, frames) for frames in (102, 110))
    assert longer.shape == (144, 110)
    assert torch.equal(longer[:, :102], fine)
    assert (longer[:, 102:] == fine[:, -1:]).all()


def test_frames_stand_at_the_same_time_as_the_rows() -> None:
    """A tone from 0.5 s on appears in the fine structure where it appears in the rows."""
    wave = partials(220)
    wave[:8_000] = 0
    features = analyse(wave, BandSettings(), PAPER)
    place = round(24 * np.log2(220 / 55))
    assert features.fine_db[place, :43].max() < 3
    assert features.fine_db[place, 56:].min() > 6


def test_length_does_not_change_the_frames_that_both_have() -> None:
    """The work is cut into pieces of 1024 frames; their borders change nothing."""
    wave = torch.randn(22 * 16_000, generator=torch.Generator().manual_seed(0))
    whole = fine_structure(wave, PAPER, 2_201)
    late = fine_structure(wave[20 * 16_000 :], PAPER, 201)
    assert torch.allclose(whole[:, 2_020:2_180], late[:, 20:180], atol=1e-3)


def test_of_takes_the_same_frames_of_both() -> None:
    features = Features(torch.arange(12.0).view(2, 6), torch.arange(18.0).view(3, 6))
    some = features.of(torch.tensor([False, True, False, False, True, False]))
    assert some.rows_db.tolist() == [[1, 4], [7, 10]]
    assert some.fine_db.tolist() == [[1, 4], [7, 10], [13, 16]]
