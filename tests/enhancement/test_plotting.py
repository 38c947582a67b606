"""The picture of an enhancement shows levels and frequencies correctly on its logarithmic axis."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tonewood.dsp.chunking import ArrayTimeSeries
from tonewood.enhancement.plotting import _log_levels, plot_enhancement
from tonewood.html_report import save_figure
from tonewood.mask.components import component_labels
from tonewood.mask.mask import Mask
from tonewood.setting_types import ChannelLink
from tonewood.settings import SpectrumSettings

EDGES_HZ = np.geomspace(40.0, 8_000.0, 321)


@pytest.mark.parametrize("hz", [110.0, 440.0, 3_000.0])
def test_sine_has_its_own_level_at_its_frequency(hz: float) -> None:
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
    levels_db = _log_levels(ArrayTimeSeries(wave), np.array([0.3, 0.5]), EDGES_HZ, 16_000)
    row = levels_db[:, 1].argmax()
    assert EDGES_HZ[row] * 0.98 <= hz <= EDGES_HZ[row + 1] * 1.02
    assert levels_db[row] == pytest.approx(20 * np.log10(0.5), abs=1.0)
    louder_db = _log_levels(ArrayTimeSeries(2 * wave), np.array([0.3, 0.5]), EDGES_HZ, 16_000)
    np.testing.assert_allclose((louder_db - levels_db)[row], 6.02, atol=0.01)


def test_silence_and_times_outside_of_a_recording_are_drawn() -> None:
    silence = ArrayTimeSeries(np.zeros(160, np.float32))
    assert np.isfinite(_log_levels(silence, np.array([0.0, 1.0]), EDGES_HZ, 16_000)).all()


@pytest.mark.parametrize(
    ("channels", "link", "titles"),
    [
        (2, "all", ["Boost and cut"]),
        (2, "mid-side", ["Boost and cut, mid", "Boost and cut, side"]),
        (3, "off", [f"Boost and cut, channel {n} of 3" for n in (1, 2, 3)]),
        (40, "off", [f"Boost and cut, channel {n} of 40" for n in range(1, 9)]),
    ],
)
def test_every_mask_is_drawn_by_name(
    channels: int, link: ChannelLink, titles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def save(figure: Any, path: Path, dpi: int) -> None:
        figures.append(figure)
        save_figure(figure, path, dpi=dpi)

    monkeypatch.setattr("tonewood.enhancement.plotting.save_figure", save)
    labels = component_labels(channels, link)
    masks = [
        Mask(np.full((3, 2), gain, np.float32), np.array([100.0, 1_000.0, 5_000.0]), 0.01, 8_000.0)
        for gain in range(2, 2 + max(1, len(labels)))
    ]
    wave = ArrayTimeSeries(np.zeros(320, np.float32))
    picture = tmp_path / "a.png"
    plot_enhancement(picture, wave, wave, masks, SpectrumSettings(), title="take", labels=labels)
    assert picture.read_bytes().startswith(b"\x89PNG")
    panels = [axes for axes in figures[0].axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["Original", *titles, "Enhanced"]
    for axes, mask in zip(panels[1:-1], masks, strict=False):
        np.testing.assert_allclose(axes.images[0].get_array(), mask.largest_db, rtol=1e-5)
