"""Runs over many files: what they leave out, their plan, their progress, and how they continue."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import tonewood
from tonewood.audio_io.recording import file_sha256
from tonewood.batch import dask_backend
from tonewood.batch.results_table import ResultRow
from tonewood.batch.runner import _Pace
from tonewood.batch.tasks import EnhanceTask, ItemResult, ScoreTask
from tonewood.cli.progress import BatchDisplay
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement.output_files import FileFailure, FileStarted, plan_jobs
from tonewood.errors import AudioError, FolderError
from tonewood.mask.search import SearchStep
from tonewood.settings import EnhanceSettings

Play = Callable[..., Any]
Run = Callable[..., Any]
FEW = ("--prior", "static", "--steps", "0", "--force", "--set", "certificate.control_steps=0")
NEEDS_PYAV = "needs PyAV: pip install '.[media]'"


@pytest.fixture
def takes(tmp_path: Path, play: Play) -> Path:
    """Return a folder of two recordings."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"take{number}.wav", play(1.0, seed=number).T, 16_000)
    return folder


@pytest.fixture
def phone(takes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recording that needs PyAV, which is not installed, in the folder of the others."""
    path = takes / "phone.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A ")
    for module in (
        "audio_io.ffmpeg",
        "audio_io.libsndfile",
        "audio_io.recording",
        "enhancement.output_files",
    ):
        monkeypatch.setattr(f"tonewood.{module}.is_pyav_installed", lambda: False)
    return path


# --- Recordings that are left out


@pytest.mark.parametrize("command", ["enhance", "score"])
def test_left_out_recording_is_named_and_exit_code_is_1(
    run: Run, takes: Path, phone: Path, model_file: Path, tmp_path: Path, command: str
) -> None:
    call = [command, takes, "-m", model_file]
    call += ["-o", tmp_path / "out", *FEW] if command == "enhance" else []
    ran = run(*call)
    assert ran.code == 1
    assert ran.err == f"tonewood: 1 recording left out ({phone}): {NEEDS_PYAV}\n"
    *done, last = run(*call, "--json").objects
    assert [Path(item["input"]).name for item in done] == ["take0.wav", "take1.wav"]
    assert last == {"input": str(phone), "skipped": NEEDS_PYAV}


def test_folder_of_left_out_recordings_is_one_failure(
    run: Run, takes: Path, phone: Path, model_file: Path
) -> None:
    for path in takes.glob("*.wav"):
        path.unlink()
    ran = run("score", takes, "-m", model_file)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "contains only recordings such as phone.m4a, which need PyAV" in ran.err


def test_commands_with_one_result_list_what_they_left_out(
    run: Run, phone: Path, model_file: Path, training_folders: Any, tmp_path: Path
) -> None:
    shutil.copytree(training_folders.reference, tmp_path / "reference")
    left_out = shutil.copy(phone, tmp_path / "reference")
    for call in (
        ("evaluate", "--folders", training_folders.source, tmp_path / "reference", "-m", model_file),
        ("audit", "--source", training_folders.source, "--reference", tmp_path / "reference"),
    ):
        ran = run(*call, "--json")
        assert ran.code == 1
        assert ran.objects[-1]["skipped"] == [{"input": str(left_out), "reason": NEEDS_PYAV}]
        assert ran.err == f"tonewood: 1 recording left out ({left_out}): {NEEDS_PYAV}\n"


@pytest.mark.usefixtures("phone")
def test_training_in_python_warns_of_left_out_recordings(takes: Path, tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match=r"phone\.m4a is left out: it needs PyAV"),
        pytest.raises((FolderError, AudioError)),
    ):
        tonewood.train(takes, tmp_path / "none")


# --- Failures and --quiet


def test_failures_are_named_again_at_the_end(run: Run, takes: Path, model_file: Path, tmp_path: Path) -> None:
    (takes / "bad.wav").write_text("no audio")
    call = ("enhance", takes, "-o", tmp_path / "out", "-m", model_file, *FEW)
    ran = run(*call, "--quiet")
    assert (ran.code, ran.out) == (1, "")
    bad = takes / "bad.wav"
    first, *warnings, heading, name, last = ran.err.splitlines()
    assert first.startswith(f"tonewood: {bad} is not audio")
    assert all(line.startswith("warning: ") for line in warnings)
    assert heading == "tonewood: failed (reasons above; --parquet FILE lists them):"
    assert (name, last) == (f"  {bad}", "tonewood: 1 of 3 failed, 2 done")
    table = tmp_path / "t.parquet"
    assert f"failed (reasons in the column error of {table}):" in run(*call, "--parquet", table).err


def test_quiet_keeps_json_and_verdicts_that_are_not_good(
    run: Run, takes: Path, model_file: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    soundfile.write(takes / "take1.wav", 0.1 * rng.standard_normal(16_000), 16_000)  # unlike both folders
    call = ("enhance", takes, "-m", model_file, *FEW)
    results = run(*call, "-o", tmp_path / "a", "--quiet", "--json").objects
    lines = {
        f"warning: {result['input']}: verdict {result['certificate']['verdict']}: "
        f"{'; '.join(result['certificate']['reasons'])}"
        for result in results
        if result["certificate"]["verdict"] in ("limited", "refused")
    }
    assert (len(results), lines != set()) == (2, True)
    ran = run(*call, "-o", tmp_path / "b", "--quiet", "--parquet", tmp_path / "t.parquet")
    assert (ran.code, ran.out, set(ran.err.splitlines())) == (0, "", lines)
    assert run(*call, "-o", tmp_path / "b", "--quiet").err == ""  # made by the earlier run


def test_quiet_score_and_explanation_print_json_only(
    run: Run, takes: Path, model_file: Path, tmp_path: Path
) -> None:
    for call in (("score", takes), ("explain", takes, "-o", tmp_path / "out", "--no-parts")):
        table = tmp_path / f"{call[0]}.parquet"
        ran = run(*call, "-m", model_file, "--quiet", "--parquet", table)
        assert (ran.code, ran.out) == (0, "")
        assert all(line.startswith("warning: ") for line in ran.err.splitlines())
        ran = run(*call, "-m", model_file, "--quiet", "--parquet", table, "--json")
        assert ran.code == 0
        assert {line["input"] for line in ran.objects if "input" in line} == set(map(str, takes.iterdir()))


def test_damaged_file_is_tried_once(run: Run, takes: Path, model_file: Path, tmp_path: Path) -> None:
    (takes / "bad.wav").write_text("no audio")
    table = tmp_path / "t.parquet"
    assert run("score", takes, "-m", model_file, "--parquet", table, "--retries", "2").code == 1
    assert set(pq.read_table(table).column("tries").to_pylist()) == {1}


# --- Continuing


def test_workers_do_not_start_for_finished_files(
    run: Run, takes: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("enhance", takes, "-o", tmp_path / "out", "-m", model_file, *FEW)
    assert run(*call).code == 0

    def start(_: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr(dask_backend.DaskWorkers, "_start_cluster", start)
    ran = run(*call, "--workers", 1)
    assert ran.code == 0, ran.err
    assert ran.out.count("  already  ") == 2


def test_render_and_enhance_make_the_same_folders(
    run: Run, takes: Path, model_file: Path, tmp_path: Path
) -> None:
    take = takes / "take0.wav"
    assert run("enhance", take, "-o", tmp_path / "new" / "a.1", "-m", model_file, *FEW).code == 0
    recipe = tmp_path / "new" / "a.1" / "take0.wav.recipe.json"
    assert run("render", recipe, take, "-o", tmp_path / "J. S. Bach").code == 0
    assert (tmp_path / "J. S. Bach" / "take0.wav").read_bytes() == recipe.with_name("take0.wav").read_bytes()


@pytest.mark.parametrize("name", ["out.txt", "out.pdf", "out.m4a", "out.xyz"])
def test_output_with_suffix_of_another_kind_of_file_is_refused(takes: Path, name: str) -> None:
    with pytest.raises(tonewood.TonewoodError, match=r"not an audio file that can be written \(.* \.wav"):
        plan_jobs([takes / "take0.wav"], takes / name)


# --- Progress


def test_pace_counts_only_files_that_took_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tonewood.batch.runner.time.monotonic", lambda: now)
    pace = _Pace(10)
    now += 1
    for _ in range(4):
        finished = pace.count(ItemResult(ResultRow("a"), None, from_earlier_run=True), 600.0)
    assert (finished.seconds_left, finished.audio_hours_per_minute) == (0.0, 0.0)
    now += 30
    progress = pace.count(ItemResult(ResultRow("b"), FileFailure(Path("b"), AudioError("no"))), 0.0)
    now += 30
    progress = pace.count(ItemResult(ResultRow("c"), None), 600.0)
    # Two files took 60 s, so the other four take 120 s; 600 s of audio in one minute.
    assert tuple(progress) == pytest.approx((6, 1, 10, 3_000 / 3_600, 1 / 6, 120.0))


def test_elapsed_time_goes_on_after_a_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    starts = []
    with BatchDisplay(ScoreTask()) as display:
        for number in (1, 2):
            display.show(FileStarted(number, 3, Path("a.wav")))
            assert display.progress is not None
            starts.append(display.progress.tasks[0].start_time)
            display.clear()
    assert starts[0] == starts[1]


def test_progress_of_a_search_reads_no_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    unread: Any = None
    with BatchDisplay(EnhanceTask(EnhanceSettings())) as display:
        assert display.show(SearchStep(2, np.zeros((3, 4), np.float32), unread))
        assert display.progress is not None
        assert display.progress.tasks[0].completed == 2


# --- Dry run


def test_dry_run_writes_nothing_and_names_every_action(
    run: Run, takes: Path, phone: Path, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("enhance", takes / "take0.wav", "-o", out, "-m", model_file, *FEW).code == 0
    (takes / "bad.wav").write_text("no audio")
    soundfile.write(takes / "short.wav", np.zeros(1_600), 16_000)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    call = ("enhance", takes, "-o", out, "-m", model_file, *FEW, "--dry-run")
    ran = run(*call, "--json")
    assert ran.code == 1
    *files, summary = ran.objects
    actions = {Path(item["input"]).name: item["action"] for item in files}
    assert actions == {
        "bad.wav": "fail", "phone.m4a": "skipped", "short.wav": "fail",
        "take0.wav": "already", "take1.wav": "enhance",
    }  # fmt: skip
    assert summary["plan"] == {"enhance": 1, "already": 1, "fail": 2, "skipped": 1}
    assert (summary["audio_seconds"], summary["estimated_seconds"] > 0) == (1.0, True)
    assert "1 to enhance (0:00:01 of audio, about" in run(*call).out
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


# --- Inventory


def test_inventory_has_format_level_and_reasons(
    run: Run, takes: Path, phone: Path, tmp_path: Path, play: Play
) -> None:
    wave = play(12.0, 44_100, 2)  # longer than a chunk
    soundfile.write(takes / "long.flac", wave.T, 44_100, "PCM_24")
    shutil.copy(takes / "take0.wav", takes / "take2.wav")
    soundfile.write(takes / "silent.wav", np.zeros(16_000), 16_000)
    ran = run("inventory", takes, "--json", "-o", tmp_path / "i.csv")
    assert ran.code == 1
    rows = {Path(row["path"]).name: row for row in ran.objects}
    assert list(rows) == ["long.flac", "silent.wav", "take0.wav", "take1.wav", "take2.wav", "phone.m4a"]
    read = soundfile.read(takes / "long.flac", dtype="float32")[0].T
    expected = {
        "seconds": 12.0, "rate": 44_100, "channels": 2, "depth": 24, "format": "FLAC", "readable": True,
        "loudness_lufs": pytest.approx(integrated_loudness(read, 44_100), abs=0.006), "error": None,
        "true_peak_dbtp": pytest.approx(true_peak_db(read, 44_100), abs=0.006),
        "sha256": file_sha256(takes / "long.flac"),
    }  # fmt: skip
    assert {key: rows["long.flac"][key] for key in expected} == expected
    assert (rows["silent.wav"]["readable"], "is silent" in rows["silent.wav"]["error"]) == (False, True)
    assert rows["silent.wav"]["rate"] == 16_000
    assert "needs PyAV" in rows[phone.name]["error"]
    assert "2 of 6 recordings cannot be used" in ran.err
    with (tmp_path / "i.csv").open() as table:
        assert [row["path"] for row in csv.DictReader(table)] == [row["path"] for row in ran.objects]
    ran = run("inventory", takes, "-o", tmp_path / "i.parquet")
    assert "6 recordings, 0:00:16 in all, 1 is a copy of another" in ran.out
    columns = pq.read_table(tmp_path / "i.parquet").to_pylist()
    assert columns == [json.loads(json.dumps(row)) for row in rows.values()]
    assert run("inventory", takes, "-o", tmp_path / "i.csv").err.count("exists: name another") == 1
    assert run("inventory", takes, "-o", tmp_path / "i.txt").code == 2


def test_inventory_prints_a_table(run: Run, takes: Path) -> None:
    ran = run("inventory", takes)
    assert (ran.code, ran.err) == (0, "")
    head, first, *_ = ran.out.splitlines()
    assert head.split() == [
        "recording",
        "time",
        "Hz",
        "channels",
        "bits",
        "format",
        "LUFS",
        "dBTP",
        "SHA-256",
    ]
    assert first.split()[:6] == [str(takes / "take0.wav"), "0:01.0", "16000", "1", "16", "WAV"]


def test_empty_folder_is_no_recording_of_an_inventory(run: Run, takes: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run("inventory", tmp_path / "empty")
    assert (ran.code, ran.err) == (1, "tonewood: 1 input cannot be used\n")
    assert ran.out.endswith("\n0 recordings, 0:00:00 in all\n")
    (takes / "take1.wav").write_text("no audio")
    ran = run("inventory", takes / "take0.wav", takes / "take1.wav", tmp_path / "empty")
    assert ran.err == "tonewood: 1 of 2 recordings and 1 input cannot be used\n"
    assert "1 recording, 0:00:01 in all\n" in run("inventory", takes / "take0.wav").out


def test_missing_path_is_no_recording_of_an_inventory(run: Run, takes: Path, tmp_path: Path) -> None:
    ran = run("inventory", takes / "take0.wav", tmp_path / "gone")
    assert (ran.code, ran.err) == (1, "tonewood: 1 input cannot be used\n")
    assert f"cannot be used: {tmp_path / 'gone'} does not exist: check its name\n1 recording, " in ran.out


# --- Doctor


def test_doctor_fits_a_screen_and_tests_the_installation(run: Run) -> None:
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) <= 24
    for word in ("tonewood", "libsndfile", "cores", "cache", "extras", "self-test   good"):
        assert word in ran.out
    (report,) = run("doctor", "--json").objects
    assert report["versions"]["tonewood"] == tonewood.__version__
    assert {"plot", "media", "cluster"} <= set(report["extras"])
    assert report["self_test"]["audio_seconds"] == pytest.approx(10.0)


def test_broken_installation_fails_the_self_test(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("tonewood.enhancement.pipeline.enhance_array", fail)
    ran = run("doctor")
    assert ran.code == 1
    assert "the self-test failed (OSError: no such library)" in ran.err
    assert "self-test   failed" in ran.out
