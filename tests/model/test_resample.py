import numpy as np
import pytest
import soxr
import torch

from tonewood.model.losses import design_polyphase, resample_polyphase

RATES = [8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000]


def resample_to(wave: torch.Tensor, rate: int, to: int = 16_000) -> torch.Tensor:
    design = design_polyphase(rate, to)
    kernel = design.kernel.to(wave)
    return resample_polyphase(wave, kernel, design.stride, design.reach)


@pytest.mark.parametrize("rate", RATES)
def test_resampling_agrees_with_soxr(rate: int) -> None:
    rng = np.random.default_rng(0)
    wave = soxr.resample(rng.standard_normal(20_000), 16_000, rate, "VHQ")
    actual = resample_to(torch.from_numpy(wave)[None], rate)[0].numpy()
    expected = soxr.resample(wave, rate, 16_000, "HQ")
    assert abs(len(actual) - len(expected)) <= 1
    length = min(len(actual), len(expected))
    spectra = [np.fft.rfft(x[:length] * np.hanning(length)) for x in (actual, expected)]
    below = np.fft.rfftfreq(length, 1 / 16_000) < 0.45 * min(rate, 16_000)
    error, power = (np.sum(np.abs(x[below]) ** 2) for x in (spectra[0] - spectra[1], spectra[1]))
    # soxr itself strays by 7e-4 at 7 kHz from rates of 44.1 kHz; see the sines below.
    assert 10 * np.log10(error / power) < -60


@pytest.mark.parametrize(("rate", "error"), [(22_050, 1e-6), (44_100, 1e-6), (12_345, 0.05)])
@pytest.mark.parametrize("hz", [55.0, 3_000.0])
def test_sine_keeps_its_phase(rate: int, error: float, hz: float) -> None:
    time = torch.arange(rate, dtype=torch.float64) / rate
    actual = resample_to(torch.sin(2 * torch.pi * hz * time)[None], rate)[0]
    assert len(actual) == pytest.approx(16_000, abs=1)
    at = torch.arange(len(actual), dtype=torch.float64) / 16_000
    expected = torch.sin(2 * torch.pi * hz * at)
    inside = slice(500, 15_000)
    assert (actual - expected)[inside].abs().max() < error


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_frequencies_above_nyquist_do_not_alias(rate: int) -> None:
    time = torch.arange(rate, dtype=torch.float64) / rate
    actual = resample_to(torch.sin(2 * torch.pi * 9_000 * time)[None], rate)[0]
    assert actual[500:15_000].abs().max() < 1e-5


def test_gradients_pass_through_resampling() -> None:
    wave = torch.randn(1, 60, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resample_to(x, 24_000), wave, fast_mode=True)


def test_unusual_rates_use_a_limited_number_of_phases() -> None:
    assert design_polyphase(44_101, 16_000).kernel.shape[0] <= 1_000
    assert design_polyphase(48_000, 16_000).kernel.shape[0] == 1
