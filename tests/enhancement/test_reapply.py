"""Recipes used again: render, apply, diff."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import file_sha256
from tonewood.enhancement import reapply
from tonewood.enhancement.analysis import ArraySource
from tonewood.enhancement.recipe import Recipe, load_recipe
from tonewood.errors import AudioError
from tonewood.export import export
from tonewood.export.diff import compare_corrections
from tonewood.mask.components import REGISTERS, gain_by_register, gain_events, mean_tilt
from tonewood.mask.mask import Mask
from tonewood.model.model import Model
from tonewood.priors.priors import ShrinkageTable

Samples = npt.NDArray[np.float32]
Play = Callable[..., Samples]
Run = Callable[..., Any]
FORCE = ("--set", "force=true", "--steps", "1")


@pytest.fixture
def take(tmp_path: Path, play: Play) -> Path:
    path = tmp_path / "in" / "take.wav"
    path.parent.mkdir()
    soundfile.write(path, play(1.5, 22_050, 2, seed=4).T, 22_050, "PCM_24")
    return path


@pytest.fixture
def output(tmp_path: Path, take: Path, run: Run, model_file: Path) -> Path:
    """Return an output with its recipe."""
    out = tmp_path / "out" / "take.wav"
    ran = run("enhance", take, "-o", out, "-m", model_file, *FORCE)
    assert ran.code == 0, ran.err
    return out


def recipe_path(path: Path) -> Path:
    return path.with_name(path.name + ".recipe.json")


# --- render


@pytest.mark.parametrize(
    ("suffix", "subtype", "more"),
    [
        (".wav", "PCM_24", ()),
        (".wav", "FLOAT", ("--amount", "0.4", "--no-match")),
        (".flac", "PCM_16", ("--only", "tilt")),
        (".ogg", "VORBIS", ()),
        (".wav", "PCM_32", ("--amount", "0")),
        (".wav", "PCM_16", ("--between", "200:4000", "--from", "0.3s", "--to", "0:01")),
        (".flac", "PCM_24", ("--amount", "-0.7", "--smooth", "0.5", "--smooth-seconds", "0.2", "--cut-only")),
        (".wav", "FLOAT", ("--amount", "1.6", "--low", "300", "--high", "3000", "--boost-only")),
        (".wav", "PCM_24", ("--mid-side", "--amount", "0.8", "--between", "200:4000")),
        (".wav", "FLOAT", ("--link", "off", "--smooth", "1")),
        (".wav", "PCM_16", ("--only", "dynamics-of-bands", "--method", "paper")),
    ],
)
def test_rendered_recipe_has_the_same_bytes(
    tmp_path: Path,
    play: Play,
    run: Run,
    model_file: Path,
    suffix: str,
    subtype: str,
    more: tuple[str, ...],
) -> None:
    first, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    soundfile.write(first, play(1.2, 24_000, 2).T, 24_000, subtype)
    assert run("enhance", first, "-o", out, "-m", model_file, *FORCE, *more).code == 0
    ran = run("render", recipe_path(out), "-o", tmp_path / f"c{suffix}", "--json")
    assert ran.code == 0, ran.err
    assert (tmp_path / f"c{suffix}").read_bytes() == out.read_bytes()
    (line,) = ran.objects
    assert line["same"] is True
    assert line["input"] == str(first)
    assert line["sha256"] == file_sha256(out)


def test_recording_is_found_beside_recipe_or_output(
    tmp_path: Path, take: Path, output: Path, run: Run
) -> None:
    recipe, elsewhere = recipe_path(output), tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Next to the recipe is the output of that name, which is not the recording.
    lost = run("render", recipe, "-o", elsewhere / "x.wav")
    assert lost.code == 1
    assert "there is no take.wav with the recipe's SHA-256 beside" in lost.err
    assert lost.err.count("\n") == 1
    assert list(elsewhere.iterdir()) == []
    assert run("render", recipe, "-o", take.parent / "again.wav").code == 0
    assert (take.parent / "again.wav").read_bytes() == output.read_bytes()
    assert run("render", recipe, take, "-o", elsewhere).code == 0
    assert (elsewhere / "take.wav").read_bytes() == output.read_bytes()
    shutil.copy(recipe, take.parent / "r.recipe.json")
    assert run("render", take.parent / "r.recipe.json", "-o", elsewhere / "z.wav").code == 0


@pytest.mark.parametrize("name", ["a\nb.wav", "a\udcffb.wav", "a\tb\x1b.wav"])
def test_recording_with_an_unprintable_name_is_found(
    tmp_path: Path, take: Path, run: Run, model_file: Path, name: str
) -> None:
    first, out = take.with_name(name), tmp_path / "out.wav"
    take.rename(first)
    assert run("enhance", first, "-o", out, "-m", model_file, *FORCE).code == 0
    ran = run("render", recipe_path(out), "-o", first.parent / "again.wav", "--json")
    assert ran.code == 0, ran.err
    assert (ran.objects[0]["input"], ran.objects[0]["same"]) == (str(first), True)


def test_wrong_recording_is_one_error(tmp_path: Path, output: Path, take: Path, play: Play, run: Run) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, play(1.5, seed=9).T, 16_000)
    ran = run("render", recipe_path(output), other, "-o", tmp_path / "x.wav")
    assert ran.code == 1
    assert "other.wav is not the recording that take.wav.recipe.json was made from" in ran.err
    assert ran.err.count("\n") == 1
    for arguments, code, reason in (
        ((recipe_path(output), take, "-o", take), 1, "is the input itself"),
        ((recipe_path(output), take, "-o", output), 1, "exists: name another output or pass --overwrite"),
        ((recipe_path(output), take, "-o", tmp_path / "x.txt"), 2, "is not an audio file"),
        ((take, "-o", tmp_path / "x.wav"), 1, "or is damaged: name a recipe, such as take.wav.recipe.json\n"),
        ((recipe_path(output), tmp_path / "no.wav", "-o", tmp_path / "x.wav"), 1, "no.wav"),
        ((recipe_path(output),), 2, "--output is missing"),
    ):
        ran = run("render", *arguments)
        assert ran.code == code, ran.err
        assert reason in ran.err
    assert not (tmp_path / "x.wav").exists()


def test_different_output_bytes_are_reported(tmp_path: Path, output: Path, take: Path, run: Run) -> None:
    tree = json.loads(recipe_path(output).read_text())
    tree["output_sha256"] = "0" * 64
    changed = tmp_path / "take.wav.recipe.json"
    changed.write_text(json.dumps(tree))
    ran = run("render", changed, take, "-o", tmp_path / "x.wav", "--json")
    assert ran.code == 0
    assert ran.objects[0]["same"] is False
    assert "the bytes differ from the first output" in ran.err
    # In another format the bytes differ in any case.
    assert reapply.render_recipe(changed, take, tmp_path / "x.flac").identical is None


# --- apply


@pytest.fixture
def adaptive_model_file(tmp_path: Path, model: Model) -> Path:
    """Return the file of a model that trusts its adaptive priors: the tiny model's are shrunk to nothing."""
    path = tmp_path / "adaptive.tonewood"
    priors = dataclasses.replace(model.priors, shrinkage=ShrinkageTable())
    dataclasses.replace(model, learnt_priors=priors).save(path)
    return path


def test_other_take_gets_static_part_and_its_own_adaptive_part(
    tmp_path: Path, take: Path, play: Play, run: Run, adaptive_model_file: Path
) -> None:
    model_file, output = adaptive_model_file, tmp_path / "out" / "take.wav"
    assert run("enhance", take, "-o", output, "-m", model_file, *FORCE).code == 0
    other = tmp_path / "other.wav"
    soundfile.write(other, play(2.1, 16_000, seed=21).T, 16_000)
    out = tmp_path / "applied" / "other.wav"
    ran = run("apply", recipe_path(output), other, "-o", out, "-m", model_file, "--json")
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    first, second = load_recipe(recipe_path(output)), load_recipe(recipe_path(out))
    assert line["carried"] == {
        "recipe": "take.wav.recipe.json",
        "sha256": file_sha256(recipe_path(output)),
        "varying": "auto",
    }
    assert second.carried is not None
    assert second.carried.model_dump() == line["carried"]
    means = [item.mask.to_mask().gain_db.mean(axis=1, dtype=float) for item in (first, second)]
    inside = np.abs(second.mask.to_mask().gain_db).max(axis=1) < 29.9
    assert inside.sum() > 40
    assert np.abs(means[0] - means[1])[inside].max() < 0.006  # a hundredth, halved, and rounding
    assert second.mask.to_mask().roughness_db > 0
    assert second.mask.frames > first.mask.frames
    assert run("render", recipe_path(out), other, "-o", tmp_path / "again.wav").code == 0
    assert (tmp_path / "again.wav").read_bytes() == out.read_bytes()
    fields = run("apply", recipe_path(output), other, "-o", tmp_path / "t.wav", "-m", model_file)
    assert "the static part of take.wav.recipe.json; the adaptive part comes from prior auto" in fields.out


def test_static_mode_is_constant_over_time(
    tmp_path: Path, output: Path, play: Play, run: Run, model_file: Path
) -> None:
    other, out = tmp_path / "other.wav", tmp_path / "o.wav"
    soundfile.write(other, play(1.1, 16_000, seed=21).T, 16_000)
    ran = run("apply", recipe_path(output), other, "-o", out, "-m", model_file, "--static-only", "--json")
    assert ran.code == 0, ran.err
    assert ran.objects[0]["carried"]["varying"] == "none"
    mask, first = (
        load_recipe(recipe_path(out)).mask.to_mask(),
        load_recipe(recipe_path(output)).mask.to_mask(),
    )
    assert mask.gain_db.shape[1] == 1
    mean = first.gain_db.mean(axis=1, dtype=float)
    assert np.abs(mask.gain_db[:, 0] - mean).max() < 0.006


def test_stems_with_the_same_mask_add_up_to_the_enhanced_mix(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    rate = 32_000
    stems = [play(1.4, rate, 2, seed=seed, formant_hz=2_000 + 300 * seed) / 4 for seed in (1, 2)]
    mix = np.sum(stems, axis=0)
    for name, wave in (("mix", mix), ("low", stems[0]), ("high", stems[1])):
        soundfile.write(tmp_path / f"{name}.wav", wave.T, rate, "FLOAT")
    out = tmp_path / "out"
    mixed = ("enhance", tmp_path / "mix.wav", "-o", out / "mix.wav", "-m", model_file, *FORCE)
    assert run(*mixed).code == 0
    recipe = out / "mix.wav.recipe.json"
    call = ("apply", recipe, tmp_path / "low.wav", tmp_path / "high.wav", "-o", out)
    ran = run(*call, "-m", model_file, "--same-mask", "--json")
    assert ran.code == 0, ran.err
    assert {line["carried"]["varying"] for line in ran.objects} == {"same"}
    parts = [read_recording(out / f"{name}.wav").samples.astype(float) for name in ("low", "high")]
    whole = read_recording(out / "mix.wav").samples
    error = np.abs(sum(parts) - whole).max() / np.abs(whole).max()
    assert 20 * np.log10(error) < -90
    masks = [load_recipe(out / f"{name}.wav.recipe.json").mask for name in ("mix", "low", "high")]
    assert masks[0] == masks[1] == masks[2]
    again = run("render", out / "low.wav.recipe.json", tmp_path / "low.wav", "-o", out / "l.wav")
    assert again.code == 0
    assert (out / "l.wav").read_bytes() == (out / "low.wav").read_bytes()


def test_same_mask_that_clips_names_what_apply_can_do(
    tmp_path: Path, output: Path, take: Path, run: Run, model_file: Path
) -> None:
    loud = tmp_path / "loud.wav"
    samples, rate = soundfile.read(take)
    soundfile.write(loud, 8 * samples, rate, "FLOAT")
    call = ("apply", recipe_path(output), loud, "-o", tmp_path / "x.wav", "-m", model_file, "--same-mask")
    assert (
        "the output exceeds full scale; the gain is the recipe's: lower the input first, and other stems"
        in run(*call).err
    )


def test_same_mask_needs_the_same_length(
    tmp_path: Path, output: Path, take: Path, play: Play, run: Run, model_file: Path
) -> None:
    short = tmp_path / "short.wav"
    soundfile.write(short, play(1.4, 22_050).T, 22_050)
    out = tmp_path / "stems"
    ran = run("apply", recipe_path(output), short, take, "-o", out, "-m", model_file, "--same-mask")
    assert ran.code == 1
    assert "the recording lasts 1.400 s, the recipe's 1.500 s; the same mask fits only stems" in ran.err
    assert "1 of 2 failed, 1 done" in ran.err
    assert (out / "take.wav").read_bytes() == output.read_bytes()


def test_apply_reports_wrong_options_and_models(
    tmp_path: Path, output: Path, take: Path, run: Run, model_file: Path
) -> None:
    out = tmp_path / "x.wav"
    both = run("apply", recipe_path(output), take, "-o", out, "--static-only", "--same-mask")
    assert both.code == 2
    assert "cannot be used together" in both.err
    # The recipe's model, `tiny`, is not a bundled one.
    unnamed = run("apply", recipe_path(output), take, "-o", out)
    assert unnamed.code == 1
    assert "tiny is neither a model file nor a bundled model" in unnamed.err
    other = run("apply", recipe_path(output), take, "-o", out, "-m", "cello")
    assert other.code == 0
    assert "warning: the recipe was made with another model than cello" in other.err


def test_static_prior_transfers_its_static_part(
    tmp_path: Path, take: Path, run: Run, model_file: Path
) -> None:
    out = tmp_path / "p.wav"
    ran = run("enhance", take, "-o", out, "-m", model_file, "--method", "paper", "--steps", "1")
    assert ran.code == 0, ran.err
    _, carried = reapply.load_transfer(recipe_path(out), "prior")
    assert carried.record.varying == "none"


def test_time_span_is_not_transferred(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    out = tmp_path / "p.wav"
    span = ("--between", "100:6000", "--from", "0.2", "--to", "1")
    assert run("enhance", take, "-o", out, "-m", model_file, *FORCE, *span).code == 0
    recipe = load_recipe(recipe_path(out))
    assert reapply.transfer_settings(recipe, "same").render.aspect == recipe.settings.render.aspect
    other = reapply.transfer_settings(recipe, "prior").render.aspect
    assert (other.between, other.start_s, other.end_s) == ((100, 6_000), None, None)


def test_invalid_time_or_band_options_are_reported(take: Path, run: Run, model_file: Path) -> None:
    out = take.parent / "x.wav"
    ran = run("enhance", take, "-o", out, "-m", model_file, *FORCE, "--from", "1:00")
    assert ran.code == 1
    assert "the recording lasts 1.5 s; there is nothing to change from 60 s on" in ran.err
    for option, value, reason in (
        ("--from", "soon", "--from is 'soon': give seconds or MIN:SEC"),
        ("--to", "1:2:3:4", "--to is '1:2:3:4'"),
        ("--between", "200-4000", "--between is '200-4000': give LOW:HIGH in Hz"),
        ("--only", "bass", "--only is 'bass'"),
    ):
        ran = run("enhance", take, "-o", out, "-m", model_file, option, value)
        assert ran.code == 2, ran.err
        assert reason in ran.err
        assert ran.err.count("\n") == 1


def test_apply_transfer_refuses_another_duration(output: Path, model: Model, play: Play) -> None:
    recipe, carried = reapply.load_transfer(recipe_path(output), "same")
    with pytest.raises(AudioError, match="fits only stems of the same take"):
        reapply.apply_transfer(
            ArraySource(play(0.5), 16_000),
            model,
            carried,
            reapply.transfer_settings(recipe, "same"),
        )


# --- diff


def test_recipe_has_no_difference_from_itself(output: Path, run: Run) -> None:
    ran = run("diff", recipe_path(output), output, "--json")
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    assert line["line"] == "no difference"
    assert line["moments"] is True
    assert line["passages"] == line["stated"] == []
    assert {item["change_db"] for item in line["registers"]} == {0}


def test_half_amount_halves_the_differences(
    tmp_path: Path, take: Path, output: Path, run: Run, model_file: Path
) -> None:
    half = tmp_path / "half.wav"
    assert run("enhance", take, "-o", half, "-m", model_file, *FORCE, "--amount", 0.5).code == 0
    (line,) = run("diff", recipe_path(output), half, "--json").objects
    for item in line["registers"]:
        assert item["b_db"] == pytest.approx(item["a_db"] / 2, abs=0.011)
    assert {"name": "render.amount", "a": 1.0, "b": 0.5} in line["stated"]
    fields = run("diff", output, half).out
    assert "render.amount: 1.0 → 0.5" in fields
    assert "presence" in fields
    assert "2000–6000" in fields


def test_diff_of_models_compares_averages(run: Run) -> None:
    ran = run("diff", "cello", "soundfont-cello", "--json")
    assert ran.code == 0, ran.err
    (line,) = ran.objects
    assert line["moments"] is False
    assert [item["name"] for item in line["registers"]] == [item.name for item in REGISTERS]
    assert "only averages are compared" in run("diff", "cello", "soundfont-cello").out
    assert run("diff", "cello", "nothing").code == 1


def flat(gain_db: float, frames: int = 400) -> Mask:
    hz = np.geomspace(20, 8_000, 60)
    return Mask(np.full((60, frames), gain_db, dtype=np.float32), hz, 0.01, 8_000.0)


def test_flat_mask_has_equal_gain_in_all_registers() -> None:
    gains = gain_by_register(flat(3.0), np.array([0.0, 1.0]))
    assert gains[:5] == pytest.approx(np.full((5, 2), 3.0), abs=1e-4)
    assert gains[6, 0] < 1  # air: the mask fades above 8 kHz
    assert mean_tilt(flat(3.0)) == pytest.approx(0, abs=1e-9)


def test_largest_difference_is_located() -> None:
    along = np.zeros((len(REGISTERS), 100))
    along[4, 30:50] = 4.0
    (actual,) = gain_events(along)
    assert actual.register.name == "presence"
    assert actual.start_s == pytest.approx(3.0, abs=0.11)
    assert actual.end_s == pytest.approx(5.0, abs=0.11)
    assert actual.gain_db == pytest.approx(4.0, abs=0.4)


def test_changed_time_is_named(output: Path) -> None:
    one = export.load_correction(str(output))
    mask = one.mask
    gain = mask.gain_db.copy()
    rows = (mask.hz > 2_000) & (mask.hz < 6_000)
    gain[np.ix_(rows, np.arange(70, 130))] += 6
    other = export.Correction(
        "b", Mask(gain, mask.hz, mask.hop_seconds, mask.top_hz), one.gain_db, one.recipe
    )
    actual = compare_corrections(one, other)
    (passage,) = (passage for passage in actual.passages if passage.name == "presence")
    assert passage.change_db == pytest.approx(6, abs=0.7)
    assert passage.start_s == pytest.approx(0.7, abs=0.2)
    assert passage.end_s == pytest.approx(1.3, abs=0.2)
    assert "more presence" in actual.line


def test_a_recipe_knows_how_long_its_recording_is(output: Path) -> None:
    actual = export.load_correction(str(recipe_path(output)))
    assert isinstance(actual.recipe, Recipe)
    assert actual.seconds == pytest.approx(1.5)
    assert export.load_correction("cello").seconds is None


# --- delta


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
def test_input_and_delta_add_up_to_the_output(
    tmp_path: Path, play: Play, run: Run, model_file: Path, subtype: str
) -> None:
    first, out = tmp_path / "a.wav", tmp_path / "out" / "a.wav"
    soundfile.write(first, 0.3 * play(1.2, 24_000, 2).T, 24_000, subtype)
    call = ("enhance", first, "-o", out, "-m", model_file, *FORCE, "--delta", "--json")
    assert run(*call).objects[0]["delta"] == f"{out}.delta.wav"
    source, output, delta = (soundfile.read(path)[0] for path in (first, out, f"{out}.delta.wav"))
    assert soundfile.info(f"{out}.delta.wav").subtype == "FLOAT"
    assert np.abs(delta).max() > 1e-3
    np.testing.assert_allclose(source + delta, output, atol=2e-7 if subtype == "FLOAT" else 2e-5)


def test_delta_is_made_later_and_is_no_input(tmp_path: Path, play: Play, run: Run, model_file: Path) -> None:
    first, out = tmp_path / "in" / "a.wav", tmp_path / "in" / "out"
    first.parent.mkdir()
    soundfile.write(first, play(1.0).T, 16_000)
    call = ("enhance", first.parent, "-o", out, "-m", model_file, *FORCE, "--json")
    assert run(*call).objects[0]["delta"] is None
    lost = run(*call, "--delta")
    assert lost.code == 1
    assert "exists: name another output or pass --overwrite" in lost.err
    assert run(*call, "--delta", "--overwrite").code == 0
    (again,) = run(*call, "--delta").objects
    assert again["already"] is True
    assert again["delta"] == f"{out / 'a.wav'}.delta.wav"


# --- masks of their own


def test_recipes_with_several_masks_are_not_transferred_or_exported(
    tmp_path: Path, play: Play, run: Run, model_file: Path
) -> None:
    first, out = tmp_path / "a.wav", tmp_path / "out.wav"
    soundfile.write(first, play(1.0, 16_000, 2).T, 16_000)
    assert run("enhance", first, "-o", out, "-m", model_file, *FORCE, "--mid-side").code == 0
    for call in (
        ("apply", recipe_path(out), first, "-m", model_file, "-o", tmp_path / "b.wav"),
        ("export", out, "--peq", 3, "-o", tmp_path / "b.txt"),
    ):
        ran = run(*call)
        assert ran.code == 2
        assert "has separate masks for mid and side" in ran.err
        assert ran.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--curve", "--curve-instead"])
def test_recipe_carries_the_curve(
    tmp_path: Path, play: Play, run: Run, model_file: Path, option: str
) -> None:
    first, out, curve = tmp_path / "a.wav", tmp_path / "out.wav", tmp_path / "house.csv"
    soundfile.write(first, play(1.0).T, 16_000)
    curve.write_text("20,6\n1000,0\n10000,-6\n")
    assert run("enhance", first, "-o", out, "-m", model_file, *FORCE, option, curve).code == 0
    curve.unlink()
    assert run("render", recipe_path(out), "-o", tmp_path / "b.wav", "--json").objects[0]["same"] is True
