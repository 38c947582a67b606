"""Curves from files, and curves as the static part of a mask."""

from pathlib import Path

import numpy as np
import pytest

from tonewood.errors import CallError, InputFileError
from tonewood.export.formats import read_curve
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask
from tonewood.settings import RenderSettings, SpectrumSettings

POINTS = ((20.0, 6.0), (200.0, 0.0), (1_000.0, -1.5), (10_000.0, -4.0))
HZ = np.geomspace(60, 7_800, 40)
FILES = {
    "plain": "20,6\n200,0\n1000,-1.5\n10000,-4\n",
    "header": "hz,dB\n20,6\n200,0\n1000,-1.5\n10000,-4\n",
    "rew": "* Measurement data by REW V5.20\n* Freq(Hz) SPL(dB) Phase(degrees)\n"
    "20.000 6.000 0.0\n200.000\t0.000\t0.0\n1000.000 -1.500 12.1\n10000.000 -4.000 0.0\n",
    "house": "20 6.0\n200 0.0\n1000 -1.5\n10000 -4.0\n",
    "autoeq": "frequency,raw,error,smoothed,equalization\n"
    "20.00,1.00,2.00,3.00,6.00\n200.00,1.00,2.00,3.00,0.00\n"
    "1000.00,1.00,2.00,3.00,-1.50\n10000.00,1.00,2.00,3.00,-4.00\n",
    "autoeq target": "frequency,raw\n20.00,6.00\n200.00,0.00\n1000.00,-1.50\n10000.00,-4.00\n",
    "semicolons": "\ufeffHz;dB\n20;6,0\n200;0\n1000;-1,5\n10000;-4,0\n",
    "graphic": "GraphicEQ: 20 6; 200 0; 1000 -1.5; 10000 -4\n",
    "spaces and decimal commas": "20,0 6,0\n200 0\n1000 -1,5\n10000 -4,0\n",
    "comma and space": "20, 6\n200, 0\n1000, -1.5\n10000, -4\n",
    "gains first": "dB,Hz\n6,20\n0,200\n-1.5,1000\n-4,10000\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_curves_of_every_kind_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "house.csv"
    path.write_text(FILES[kind], "utf-8")
    assert read_curve(path) == POINTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20,6\n",
        "no,curve\nat,all\n",
        "200,1\n100,2\n",
        "\0\1\2",
        "20,6\n30,x\n40,2\n",
        "20,6\n30,nan\n",
        "-20,6\n30,1\n",
        "20,6\n30\n",
    ],
)
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "house.csv"
    path.write_text(text)
    with pytest.raises(CallError, match=r"house\.csv is not a curve \(.+\): give lines of Hz and dB"):
        read_curve(path)
    with pytest.raises(InputFileError, match="cannot be read"):
        read_curve(tmp_path / "gone.csv")


def random_mask() -> Mask:
    gain = np.random.default_rng(3).normal(1, 4, (40, 60)).astype(np.float32)
    return Mask(gain, HZ, 0.01, 8_000.0)


def curve_at(hz: np.ndarray) -> np.ndarray:
    at_hz, at_db = np.array(POINTS).T
    return np.asarray(np.interp(np.log(hz), np.log(at_hz), at_db))


@pytest.mark.parametrize("replaces", [False, True])
def test_curve_joins_the_static_part(replaces: bool) -> None:
    mask = random_mask()
    settings = RenderSettings().replace(curve=dict(points=POINTS, replaces_static=replaces))
    applied = effective_mask(mask, settings, SpectrumSettings())
    hz, seconds = HZ[1:-1], np.arange(60) * 0.01
    before, after = mask.gain_at(hz, seconds), applied.gain_at(hz, seconds)
    static = 0 if replaces else before.mean(axis=1)
    assert after.mean(axis=1) == pytest.approx(static + curve_at(hz), abs=0.02)
    movement = before - before.mean(axis=1, keepdims=True)
    assert np.allclose(after - after.mean(axis=1, keepdims=True), movement, atol=0.02)
    high = np.array([16_000.0])
    assert applied.gain_at(high, seconds[:1])[0, 0] == pytest.approx(-4, abs=0.1)


def test_amount_scales_the_curve_too() -> None:
    curve = dict(points=POINTS)
    whole, half = (
        effective_mask(random_mask(), RenderSettings.model_validate(changes), SpectrumSettings()).gain_db
        for changes in ({"curve": curve}, {"curve": curve, "amount": 0.5})
    )
    assert np.allclose(half, whole / 2, atol=1e-5)


def test_measured_levels_are_not_gains() -> None:
    with pytest.raises(CallError, match="the curve has 75 dB at 20 Hz; gains go from -60 to 60 dB"):
        RenderSettings().replace(curve=dict(points=((20.0, 75.0), (30.0, 74.0))))
