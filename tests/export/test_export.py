"""Corrections for other programs; independent parsers read each file back."""

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import yaml
from scipy.signal import freqz, group_delay

from tonewood.dsp.equalizer import fit_grid_hz
from tonewood.enhancement.recipe import load_recipe as load_recipe
from tonewood.export import export

Floats = npt.NDArray[np.floating[Any]]
Run = Callable[..., Any]
HZ = np.geomspace(50, 16_000, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture
def enhanced_file(folder: Path, play: Callable[..., Any], run: Run, model_file: Path) -> Path:
    """Output with a recipe whose mask changes over time."""
    out = folder / "take out.wav"
    if not out.exists():
        soundfile.write(folder / "take.wav", play(2.2, 22_050, seed=4).T, 22_050)
        more = ("--set", "force=true", "--prior", "neighbours", "--steps", "1")
        ran = run("enhance", folder / "take.wav", "-o", out, "-m", model_file, *more)
        assert ran.code == 0, ran.err
    return out


def average(path: Path, hz: Floats = HZ) -> Floats:
    """Return the mask's mean over time plus the gain, with the mel interpolation written out."""
    recipe = load_recipe(path.with_name(path.name + ".recipe.json"))
    mask = recipe.mask.to_mask()
    mean = mask.gain_db.astype(float).mean(axis=1)
    mel, rows = (2595 * np.log10(1 + np.asarray(f) / 700) for f in (hz, mask.hz))
    fade = np.clip(1 - np.log2(np.maximum(hz, mask.top_hz) / mask.top_hz), 0, 1)
    return np.asarray(np.interp(mel, rows, mean) * fade + recipe.gain_db)


# --- Impulse responses


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("phase", ["linear", "minimum"])
def test_response_matches_average_correction(
    tmp_path: Path, enhanced_file: Path, run: Run, phase: str, rate: int
) -> None:
    out = tmp_path / "ir.wav"
    ran = run("export", enhanced_file, "--ir", phase, "--rate", rate, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    response, parsed = soundfile.read(out)
    assert parsed == rate
    assert soundfile.info(out).subtype == "FLOAT"
    _, h = freqz(response, worN=HZ, fs=rate)
    error = np.abs(20 * np.log10(np.abs(h)) - average(enhanced_file)).max()
    assert error < 0.1
    (line,) = ran.objects
    assert line["error_db"] == pytest.approx(error, abs=0.03)
    assert line["length"] == len(response) >= rate / 6


def test_linear_and_minimum_phase(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    waves = []
    for phase in ("linear", "minimum"):
        out = tmp_path / f"{phase}.wav"
        ran = run("export", enhanced_file, "--ir", phase, "--length", 8_192, "-o", out, "--json")
        assert ran.code == 0, ran.err
        waves.append((soundfile.read(out)[0], ran.objects[0]["delay"]))
    (linear, delay), (minimum, none) = waves
    assert none == 0
    assert np.allclose(linear[:delay], linear[delay + 1 : 2 * delay + 1][::-1], atol=1e-7)
    _, late = group_delay((linear, [1.0]), w=HZ[::20], fs=48_000)
    assert late == pytest.approx(np.full(len(late), delay), abs=0.5)
    # Of all responses with one magnitude, the minimum-phase one has its energy first.
    assert np.cumsum(minimum**2)[500] > 0.95 * np.sum(minimum**2)
    assert np.argmax(np.abs(minimum)) < 20


def test_short_response_warns(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "ir.wav"
    ran = run("export", enhanced_file, "--ir", "linear", "--length", "256", "-o", out)
    assert ran.code == 0
    assert "deviates up to" in ran.err
    assert "use a larger --length" in ran.err


def test_headroom_keeps_gains_below_zero(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "ir.wav"
    assert run("export", enhanced_file, "--ir", "minimum", "--headroom", "-o", out).code == 0
    _, h = freqz(soundfile.read(out)[0], worN=np.geomspace(20, 20_000, 900), fs=48_000)
    levels = 20 * np.log10(np.abs(h))
    assert levels.max() == pytest.approx(0, abs=0.2)


def test_model_exports_its_static_mask(tmp_path: Path, model: Any, model_file: Path, run: Run) -> None:
    out = tmp_path / "ir.wav"
    assert run("export", model_file, "--ir", "linear", "-o", out).code == 0
    _, h = freqz(soundfile.read(out)[0], worN=HZ, fs=48_000)
    static = model.priors.static_db.clip(-30, 30)
    rows = 2595 * np.log10(1 + export.load_correction(str(model_file)).mask.hz / 700)
    below = HZ < 8_000
    expected = np.interp(2595 * np.log10(1 + HZ / 700), rows, static)
    assert np.abs(20 * np.log10(np.abs(h)) - expected)[below].max() < 0.1


# --- Parametric bands


def rbj(kind: str, hz: float, gain: float, q: float, rate: float) -> tuple[list[float], list[float]]:
    """Return the filter of the Audio EQ Cookbook, term by term."""
    a = math.pow(10, gain / 40)
    w0 = 2 * math.pi * hz / rate
    c, al = math.cos(w0), math.sin(w0) / (2 * q)
    r = 2 * math.sqrt(a) * al
    if kind == "PK":
        return [1 + al * a, -2 * c, 1 - al * a], [1 + al / a, -2 * c, 1 - al / a]
    if kind == "LS":
        return (
            [a * (a + 1 - (a - 1) * c + r), 2 * a * (a - 1 - (a + 1) * c),
             a * (a + 1 - (a - 1) * c - r)],
            [a + 1 + (a - 1) * c + r, -2 * (a - 1 + (a + 1) * c), a + 1 + (a - 1) * c - r],
        )  # fmt: skip
    assert kind == "HS"
    return (
        [a * (a + 1 + (a - 1) * c + r), -2 * a * (a - 1 + (a + 1) * c),
         a * (a + 1 + (a - 1) * c - r)],
        [a + 1 - (a - 1) * c + r, 2 * (a - 1 - (a + 1) * c), a + 1 - (a - 1) * c - r],
    )  # fmt: skip


Filters = list[tuple[str, float, float, float]]


def read_apo(text: str) -> tuple[float, Filters]:
    """Parse lines like Equalizer APO and AutoEq, which ignore comments and unknown lines."""
    gain, parsed = 0.0, []
    for line in text.splitlines():
        if preamp := re.fullmatch(r"Preamp: (-?[\d.]+) dB", line):
            gain += float(preamp[1])
        pattern = r"Filter \d+: ON (PK|LSC|HSC) Fc ([\d.]+) Hz Gain (-?[\d.]+) dB Q ([\d.]+)"
        if band := re.fullmatch(pattern, line):
            parsed.append((band[1][:2], float(band[2]), float(band[3]), float(band[4])))
    return gain, parsed


def read_rew(text: str) -> tuple[float, Filters]:
    assert text.startswith("Filter Settings file\n")
    assert "\nEqualiser: Generic\n" in text
    parsed = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Filter"] and words[2:3] == ["ON"]:
            kind = words[3]
            assert words[4:5] == (["Q"] if kind in ("LS", "HS") else ["Fc"])
            figures = dict(re.findall(r"(Fc|Gain|Q) +(-?[\d.]+)", line))
            hz, level, q = (float(figures[name]) for name in ("Fc", "Gain", "Q"))
            parsed.append((kind, hz, level, q))
    gain = re.search(r"^Notes:.*gain of the whole (-?[\d.]+) dB$", text, re.MULTILINE)
    assert gain is not None
    return float(gain[1]), parsed


def read_camilladsp2(text: str) -> tuple[float, Filters]:
    tree = yaml.safe_load(text)
    assert [step.pop("channel") for step in tree["pipeline"]] == [0, 1]
    first, second = tree["pipeline"]
    assert first == second
    return read_camilladsp(yaml.dump({**tree, "pipeline": [{**first, "channels": [0, 1]}]}))


def read_camilladsp(text: str) -> tuple[float, Filters]:
    tree = yaml.safe_load(text)
    (step,) = tree["pipeline"]
    assert step["type"] == "Filter"
    assert step["channels"] == [0, 1]
    gain, parsed = 0.0, []
    for name in step["names"]:
        filter_ = tree["filters"].pop(name)
        values = filter_["parameters"]
        if filter_["type"] == "Gain":
            assert values["inverted"] is values["mute"] is False
            gain += values["gain"]
        else:
            assert filter_["type"] == "Biquad"
            kind = {"Peaking": "PK", "Lowshelf": "LS", "Highshelf": "HS"}[values["type"]]
            parsed.append((kind, values["freq"], values["gain"], values["q"]))
    assert not tree["filters"]  # the pipeline names them all
    return gain, parsed


READERS = {
    "apo": read_apo,
    "autoeq": read_apo,
    "rew": read_rew,
    "camilladsp": read_camilladsp,
    "camilladsp2": read_camilladsp2,
}


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("count", [1, 7])
def test_bands_leave_the_reported_error(
    tmp_path: Path, enhanced_file: Path, run: Run, form: str, count: int
) -> None:
    out = tmp_path / "eq.txt"
    ran = run("export", enhanced_file, "--peq", count, "--format", form, "-o", out, "--json", "--no-headroom")
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    gain, filters = READERS[form](out.read_text())
    assert len(filters) == len(line["bands"]) == count
    hz = fit_grid_hz(48_000)
    total = np.full(len(hz), gain)
    for filter_ in filters:
        _, h = freqz(*rbj(*filter_, 48_000), worN=hz, fs=48_000)
        total += 20 * np.log10(np.abs(h))
    left = total - average(enhanced_file, hz)
    assert line["rms_db"] == pytest.approx(np.sqrt(np.mean(left**2)), abs=2e-3)
    assert line["largest_db"] == pytest.approx(np.abs(left).max(), abs=2e-3)
    assert line["rms_db"] < np.std(average(enhanced_file, hz))


def test_autoeq_has_no_comments_and_yml_is_camilladsp(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "ParametricEQ.txt"
    assert run("export", enhanced_file, "--peq", 3, "--format", "autoeq", "-o", out).code == 0
    first, *rest = out.read_text().splitlines()
    assert first.startswith("Preamp: ")
    assert all(line.startswith("Filter ") for line in rest)
    assert run("export", enhanced_file, "--peq", 3, "-o", tmp_path / "a.yml").code == 0
    assert "pipeline" in yaml.safe_load((tmp_path / "a.yml").read_text())
    assert run("export", enhanced_file, "--peq", 3, "-o", tmp_path / "a.txt").code == 0
    assert (tmp_path / "a.txt").read_text().startswith("# Tonewood: average correction of ")


def test_bands_keep_the_limits_of_a_device(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    limits = ("--frequencies", "1000,63,250,4000", "--q", "1.4", "--max-gain", "3")
    ran = run("export", enhanced_file, *limits, "-o", tmp_path / "eq.txt", "--json")
    assert ran.code == 0, ran.err
    bands = ran.objects[0]["bands"]
    assert [band["hz"] for band in bands] == [63, 250, 1_000, 4_000]
    assert {band["kind"] for band in bands} == {"peaking"}
    assert {band["q"] for band in bands} == {1.4}
    assert max(abs(band["gain_db"]) for band in bands) <= 3
    ran = run("export", enhanced_file, "--bands", 5, "--q", "0.5:2", "-o", tmp_path / "b.txt", "--json")
    assert all(0.5 <= band["q"] <= 2 for band in ran.objects[0]["bands"])


def test_preamp_is_minus_the_largest_gain(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "eq.txt"
    assert run("export", enhanced_file, "--peq", 6, "-o", out).code == 0
    preamp, filters = read_apo(out.read_text())
    hz = np.geomspace(20, 20_000, 3_000)
    total = sum(20 * np.log10(np.abs(freqz(*rbj(*one, 48_000), worN=hz, fs=48_000)[1])) for one in filters)
    assert preamp == pytest.approx(-max(0.0, float(np.max(total))), abs=0.02)


def test_graphic_eq_is_one_line_of_the_curve(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "GraphicEQ.txt"
    ran = run("export", enhanced_file, "--graphic-eq", "--no-headroom", "-o", out, "--json")
    assert ran.code == 0, ran.err
    (text,) = out.read_text().splitlines()
    points = np.array([point.split() for point in text.removeprefix("GraphicEQ: ").split(";")], dtype=float)
    assert (len(points), points[0, 0], points[-1, 0]) == (127, 20, 19_871)
    assert np.all(np.diff(points[:, 0]) > 0)
    assert points[:, 1] == pytest.approx(average(enhanced_file, points[:, 0]), abs=0.02)
    assert run("export", enhanced_file, "--graphic-eq", "-o", out, "--overwrite").code == 0
    lowered = [float(point.split()[1]) for point in out.read_text()[len("GraphicEQ: ") :].split(";")]
    assert max(lowered) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("preset", [("--peq", "6"), ("--graphic-eq",)])
def test_preset_says_that_it_lowers_the_level(
    tmp_path: Path, enhanced_file: Path, run: Run, preset: tuple[str, ...]
) -> None:
    text = ", lowered against clipping (--no-headroom keeps the level)\n"
    assert text in run("export", enhanced_file, *preset, "-o", tmp_path / "a.txt").out
    assert text not in run("export", enhanced_file, *preset, "-o", tmp_path / "b.txt", "--no-headroom").out


# --- Automation


def test_table_is_mask_in_third_octaves(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "a.csv"
    ran = run("export", enhanced_file, "--automation", "--step", "0.1", "-o", out, "--json")
    assert ran.code == 0, ran.err
    head, *rows = csv.reader(io.StringIO(out.read_text()))
    assert head[0] == "seconds"
    hz = [float(name.removesuffix(" Hz")) for name in head[1:]]
    assert (hz[0], hz[-1], len(hz)) == (50, 16_000, 26)
    assert np.diff(np.log2(hz)) == pytest.approx(np.full(25, 1 / 3), abs=0.06)
    values = np.array(rows, dtype=float)
    assert values[:, 0] == pytest.approx(np.arange(22) * 0.1)
    recipe = load_recipe(enhanced_file.with_name(enhanced_file.name + ".recipe.json"))
    mask = recipe.mask.to_mask()
    for column, centre in enumerate(hz, start=1):
        # The mean of the mask over the band, by many points.
        points = centre * 2 ** np.linspace(-1 / 6, 1 / 6, 41)
        expected = mask.gain_at(points, values[:, 0]).mean(axis=0)
        assert np.abs(values[:, column] - expected).max() < 1.0
    assert ran.objects[0]["rows"] == 22


def test_effect_has_rows_of_the_table(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    out = tmp_path / "a.jsfx"
    ran = run("export", enhanced_file, "--automation", "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["format"] == "jsfx"
    text = out.read_text()
    assert text.startswith(f"desc:Tonewood: {enhanced_file}\n")
    rows = re.findall(r"^row\((.*)\);$", text, re.MULTILINE)
    assert len(rows) == ran.objects[0]["rows"] > 5
    assert {len(row.split(",")) for row in rows} == {27}
    gain = load_recipe(enhanced_file.with_name(enhanced_file.name + ".recipe.json")).gain_db
    assert f"slider3:{gain:.2f}<" in text


# --- Wrong calls


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        ((), 2, "exactly one of --ir, --peq, --graphic-eq, --automation and --plugin is needed"),
        (
            ("--ir", "linear", "--peq", "3"),
            2,
            "exactly one of --ir, --peq, --graphic-eq, --automation and --plugin",
        ),
        (("--ir", "round"), 2, "--ir is 'round': choose linear or minimum"),
        (("--ir", "linear", "--length", "3"), 2, "--length is 3: give a whole number from 64"),
        (("--ir", "linear", "--rate", "1"), 2, "--rate is 1: give a whole number from 4000"),
        (("--peq", "0"), 2, "--peq is 0: give a whole number from 1 to 20"),
        (("--peq", "21"), 2, "--peq is 21: give a whole number from 1 to 20"),
        (("--peq", "3", "--format", "wav"), 2, "--format is 'wav': choose one of apo, autoeq"),
        (("--automation", "--format", "apo"), 2, "--format is 'apo': choose csv or jsfx"),
        (("--automation", "--step", "0"), 2, "--step is 0: give a number from 0.01 to 10"),
        (("--ir", "linear", "--format", "apo"), 2, "--format does not apply to --ir"),
        (("--automation", "--headroom"), 2, "--headroom does not apply to --automation"),
        (("--graphic-eq", "--format", "apo"), 2, "--format does not apply to --graphic-eq"),
        (("--ir", "linear", "--q", "2"), 2, "--q and --max-gain limit parametric bands"),
        (("--peq", "3", "--q", "a:b"), 2, "--q is 'a:b': give a value, or LOW:HIGH"),
        (("--peq", "3", "--q", "5:2"), 2, "--q is 5 to 2: give a value or LOW:HIGH"),
        (("--peq", "3", "--max-gain", "0"), 2, "--max-gain is 0 dB: give more than 0"),
        (("--peq", "3", "--frequencies", "100,200"), 2, "--peq is 3, and --frequencies has 2"),
        (("--frequencies", "100,x"), 2, "--frequencies is '100,x': give HZ,HZ,…"),
        (("--frequencies", "100,30000"), 2, "--frequencies has 30000 Hz: give 20 to 22560 Hz"),
    ],
)
def test_wrong_export_options_are_refused(
    tmp_path: Path, enhanced_file: Path, run: Run, more: tuple[str, ...], code: int, reason: str
) -> None:
    ran = run("export", enhanced_file, *more, "-o", tmp_path / ("x.wav" if "--ir" in more else "x.txt"))
    assert ran.code == code, ran.err
    assert reason in ran.err
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_paths_and_corrections_are_refused(tmp_path: Path, enhanced_file: Path, run: Run) -> None:
    existing = tmp_path / "there.wav"
    existing.write_text("old")
    for correction, more, out, code, reason in (
        (enhanced_file, ("--ir", "linear"), existing, 1, "exists: name another output or pass --overwrite"),
        (
            enhanced_file,
            ("--ir", "linear"),
            tmp_path / "x.txt",
            2,
            "is not the name of an audio file: use a name such as",
        ),
        (enhanced_file, ("--peq", "3"), existing / "x.txt", 1, "is a file): name another output folder"),
        (enhanced_file, ("--peq", "3"), tmp_path / "x.wav", 2, "x.wav is not an output of --peq: end the"),
        (enhanced_file, ("--automation",), tmp_path / "x.txt.wav", 2, "end the name in .csv, .jsfx or .txt"),
        (
            "nobody",
            ("--plugin",),
            tmp_path / "x.flac",
            2,
            "is not an output of --plugin: end the name in .twp",
        ),
        ("cello", ("--automation",), tmp_path / "x.csv", 2, "is a model, whose correction does not change"),
        ("nobody", ("--peq", "3"), tmp_path / "x.txt", 1, "neither a model file nor a bundled"),
        (existing, ("--peq", "3"), tmp_path / "x.txt", 1, "there.wav has no recipe beside it"),
    ):
        ran = run("export", correction, *more, "-o", out)
        assert ran.code == code, ran.err
        assert reason in ran.err
    assert existing.read_text() == "old"


def test_static_recipe_has_one_row_of_automation(
    tmp_path: Path, enhanced_file: Path, run: Run, model_file: Path
) -> None:
    out = tmp_path / "s.wav"
    recipe = enhanced_file.with_name(enhanced_file.name + ".recipe.json")
    call = ("apply", recipe, enhanced_file.with_name("take.wav"), "-o", out, "-m", model_file)
    assert run(*call, "--static-only").code == 0
    assert run("export", out, "--automation", "-o", tmp_path / "s.jsfx", "--json").code == 0
    rows = re.findall(r"^row\(.*\);$", (tmp_path / "s.jsfx").read_text(), re.MULTILINE)
    assert len(rows) <= 3


def test_plugin_file_is_reported(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "mine.twp"
    ran = run("export", "soundfont-cello", "--plugin", "-o", out, "--json")
    assert ran.code == 0, ran.err
    (data,) = ran.objects
    assert (data["kind"], data["name"], data["licence"]) == ("plugin", "soundfont-cello", "MIT")
    assert data["bytes"] == out.stat().st_size


def test_model_without_predictor_has_no_plugin_file(tmp_path: Path, run: Run, model_file: Path) -> None:
    ran = run("export", model_file, "--plugin", "-o", tmp_path / "mine.twp")
    assert ran.code == 1
    assert "has no predictor: add one with train --predictor" in ran.err
    assert not list(tmp_path.iterdir())
