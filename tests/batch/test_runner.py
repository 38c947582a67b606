"""Batch runs in one process: URLs, failures, the table of results, and runs that continue."""

import io
import json
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.registry import _registry

from tonewood.audio_io import remote
from tonewood.batch import results_table, runner
from tonewood.batch.enhance_file import FileEnhanced
from tonewood.batch.results_table import ResultRow, ResultsTable
from tonewood.batch.tasks import EnhanceTask, FileScored, ItemResult, ScoreTask
from tonewood.enhancement import recipe
from tonewood.enhancement.output_files import FileFailure, FileJob, plan_jobs
from tonewood.errors import MissingExtraError, OutputError, TonewoodError
from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings

Play = Callable[..., npt.NDArray[np.float32]]
Run = Callable[..., Any]
SETTINGS = EnhanceSettings().replace(
    prior=dict(kind="static"), search=dict(steps=0), force=True, certificate=dict(control_steps=0)
)
FEW = ("--prior", "static", "--steps", "0", "--force", "--set", "certificate.control_steps=0")
TASK = EnhanceTask(SETTINGS)


@pytest.fixture
def takes(tmp_path: Path, play: Play) -> Path:
    """Return a folder of two recordings, and of one file that is not audio."""
    folder = tmp_path / "in"
    (folder / "day").mkdir(parents=True)
    for number in range(2):
        soundfile.write(folder / "day" / f"take{number}.wav", play(1.0, seed=number).T, 16_000)
    (folder / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture
def bucket(takes: Path) -> Iterator[str]:
    """Return the URL of a copy in the memory of this process."""
    system = fsspec.filesystem("memory")
    for path in takes.rglob("*.wav"):
        system.pipe_file(f"/takes/{path.relative_to(takes)}", path.read_bytes())
    yield "memory://takes"
    for root in ("/takes", "/out"):
        if system.exists(root):
            system.rm(root, recursive=True)


def completed(events: list[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, FileEnhanced | FileScored)]


# --- URLs


def test_urls_give_the_same_output_bytes_as_paths(
    tmp_path: Path, takes: Path, bucket: str, run: Run, model_file: Path
) -> None:
    local = run("enhance", takes, "-o", tmp_path / "out", "-m", model_file, *FEW)
    existing = run("enhance", bucket, "-o", "memory://out", "-m", model_file, *FEW)
    assert local.code == existing.code == 1
    assert "memory://takes/bad.wav is not audio" in existing.err
    system = fsspec.filesystem("memory")
    expected = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert len(expected) == 4
    actual = system.find("/out")
    assert {item.removeprefix("/out/"): system.cat_file(item) for item in actual} == expected


def test_run_at_urls_resumes_and_does_not_replace_other_outputs(
    bucket: str, run: Run, model_file: Path, play: Play
) -> None:
    command = ("enhance", bucket, "-o", "memory://out", "-m", model_file, *FEW, "--json")
    system = fsspec.filesystem("memory")
    assert [item["already"] for item in run(*command).objects if "already" in item] == [False, False]
    system.rm_file("/out/day/take0.wav")  # as if killed after the recipe and before the audio
    fields = {item["input"]: item for item in run(*command).objects}
    assert fields[f"{bucket}/day/take0.wav"]["already"] is False
    assert fields[f"{bucket}/day/take1.wav"]["already"] is True
    assert fields[f"{bucket}/day/take1.wav"]["output"] == "memory://out/day/take1.wav"
    other = io.BytesIO()
    soundfile.write(other, play(1.0, seed=9).T, 16_000, format="WAV")
    system.pipe_file("/takes/day/take1.wav", other.getvalue())
    before = system.cat_file("/out/day/take1.wav")
    ran = run(*command)
    assert "memory://out/day/take1.wav exists: name another output" in ran.err
    assert system.cat_file("/out/day/take1.wav") == before
    assert run(*command, "--overwrite").code == 1  # bad.wav fails
    assert system.cat_file("/out/day/take1.wav") != before


def test_single_file_is_enhanced_from_path_to_url_and_back(
    tmp_path: Path, takes: Path, bucket: str, run: Run, model_file: Path
) -> None:
    first = takes / "day" / "take0.wav"
    assert run("enhance", first, "-o", "memory://out/a.flac", "-m", model_file, *FEW).code == 0
    back = tmp_path / "back.flac"
    url = f"{bucket}/day/take0.wav"
    assert run("enhance", url, "-o", back, "-m", model_file, *FEW).code == 0
    assert fsspec.filesystem("memory").cat_file("/out/a.flac") == back.read_bytes()
    assert recipe.load_recipe(recipe_path(back)).input.name == "take0.wav"


def recipe_path(path: Path) -> Path:
    return path.with_name(path.name + recipe.RECIPE_SUFFIX)


def test_file_url_is_read_as_path(tmp_path: Path, takes: Path, run: Run, model_file: Path) -> None:
    out = (tmp_path / "o u t").as_uri()
    assert run("enhance", takes.as_uri(), "-o", out, "-m", model_file, *FEW).code == 1
    assert (tmp_path / "o u t" / "day" / "take1.wav").exists()


@pytest.mark.parametrize(
    ("url", "code", "line"),
    [
        ("memory://nothing", 1, "memory://nothing does not exist"),
        ("nosuch://a/b", 2, "nosuch://a/b cannot be reached"),
    ],
)
def test_missing_or_unknown_url_gives_one_line_error(
    tmp_path: Path, run: Run, model_file: Path, url: str, code: int, line: str
) -> None:
    ran = run("enhance", url, "-o", tmp_path / "out", "-m", model_file)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert line in ran.err


def test_outputs_of_earlier_run_are_not_inputs(bucket: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/takes/out/a.wav", b"made")
    system.pipe_file("/takes/out/a.wav.recipe.json", b"{}")
    inside = [str(item.input) for item in plan_jobs([bucket], f"{bucket}/out")]
    assert inside == [f"{bucket}/{item}" for item in ("bad.wav", "day/take0.wav", "day/take1.wav")]


def test_two_urls_with_same_output_are_refused(bucket: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/takes/other/take0.wav", b"")
    *_, failure = plan_jobs([f"{bucket}/day", f"{bucket}/other"], "memory://out")
    assert isinstance(failure, FileFailure)
    assert "would become memory://out/take0" in str(failure.error)


def test_memory_url_is_refused_with_workers(bucket: str, run: Run, model_file: Path) -> None:
    ran = run("enhance", bucket, "-o", "memory://out", "-m", model_file, "--workers", 1)
    assert ran.code == 2
    assert "exists in one process only: leave out the workers" in ran.err


# --- Failures


class FailingFirst(ScoreTask):
    """Task that fails a number of times, and then scores."""

    failures = 1

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Fail while failures remain, then score."""
        if self.failures:
            object.__setattr__(self, "failures", self.failures - 1)
            raise OutputError("not yet").as_temporary()
        yield from super().run(item, model, previous)


def test_failed_file_is_retried_after_the_others(tmp_path: Path, takes: Path, model: Model) -> None:
    units = [FileJob(takes / "day" / f"take{number}.wav") for number in range(2)]
    table = tmp_path / "t.parquet"
    events = completed(list(runner.run_batch(units, FailingFirst(), model, table=table, retries=1)))
    assert [event.input.name for event in events] == ["take1.wav", "take0.wav"]
    assert {Path(row.path).name: row.tries for row in results_table.read_results(table)} == {
        "take0.wav": 2,
        "take1.wav": 1,
    }


def test_permanent_failure_is_tried_once_and_is_a_row_with_its_error(
    tmp_path: Path, takes: Path, model: Model
) -> None:
    table = tmp_path / "out" / "t.parquet"
    units = plan_jobs([takes], tmp_path / "out")
    events = list(runner.run_batch(units, TASK, model, table=table, retries=2))
    failures = [event for event in events if isinstance(event, FileFailure)]
    assert [Path(item.input).name for item in failures] == ["bad.wav"]
    rows = {Path(row.path).name: row for row in results_table.read_results(table)}
    assert set(rows) == {"bad.wav", "take0.wav", "take1.wav"}
    assert rows["bad.wav"].error == str(failures[0].error)
    assert rows["bad.wav"].tries == 1
    assert rows["bad.wav"].sha256 is not None
    *_, progress = [event for event in events if isinstance(event, runner.BatchProgress)]
    assert (progress.completed, progress.failed, progress.total) == (3, 1, 3)
    assert progress.audio_hours == pytest.approx(2 / 3600)
    assert progress.seconds_left == 0


class Broken(ScoreTask):
    """Task that raises an exception that is not ours."""

    def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        """Fail."""
        raise ZeroDivisionError("by zero")
        yield


class Reporting(ScoreTask):
    """Reports progress in large objects, as a search does; counts those that exist at once."""

    def __init__(self) -> None:
        self.alive, self.most = 0, 0

    def run(self, item: Any, model: Model, previous: ResultRow | None) -> Iterator[Any]:
        for _ in range(20):
            step = type("Step", (), {})()
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(step, self.count_freed)
            yield step
            del step
        yield ItemResult(ResultRow(str(item.input)), None)

    def count_freed(self) -> None:
        self.alive -= 1


def test_worker_keeps_no_progress_of_a_long_recording(takes: Path, model: Model) -> None:
    task = Reporting()
    first = FileJob(takes, takes)
    runner._final_result(task, model, runner.PendingItem(first, None))
    assert task.most <= 2


def test_unexpected_exception_becomes_file_failure(takes: Path, model: Model) -> None:
    units = [FileJob(takes / "bad.wav")]
    (first,) = [event for event in runner.run_batch(units, Broken(), model) if isinstance(event, FileFailure)]
    assert "bad.wav failed with an unexpected error (ZeroDivisionError: by zero)" in str(first.error)


# --- The table


def test_table_agrees_with_recipes(tmp_path: Path, takes: Path, model: Model) -> None:
    out = tmp_path / "out"
    table = out / "t.parquet"
    units = plan_jobs([takes], out)
    list(runner.run_batch(units, TASK, model, table=table))
    for row in results_table.read_results(table):
        if row.error is not None:
            continue
        assert row.output is not None
        fields = recipe.load_recipe(recipe_path(Path(row.output)))
        assert row.sha256 == fields.input.sha256
        assert row.seconds == fields.input.samples / fields.input.rate == 1.0
        assert row.scorer == fields.certificate.scorer.before
        assert row.scorer_after == fields.certificate.scorer.after
        assert json.loads(row.certificate or "") == fields.certificate.model_dump(mode="json")
        assert row.verdict == fields.certificate.verdict
    before = {row.path: row for row in results_table.read_results(table)}
    events = completed(list(runner.run_batch(units, TASK, model, table=table)))
    assert all(event.from_earlier_run for event in events)
    after = {row.path: row for row in results_table.read_results(table)}
    assert set(after) == set(before)
    for name, row in after.items():
        assert (row.sha256, row.certificate) == (before[name].sha256, before[name].certificate)


def test_rows_survive_stopped_run(tmp_path: Path, takes: Path, model: Model) -> None:
    table = tmp_path / "t.parquet"
    units = [FileJob(path) for path in sorted(takes.rglob("take*.wav"))]
    events = runner.run_batch(units, ScoreTask(), model, table=table)
    assert isinstance(events, Generator)
    first = next(event for event in events if isinstance(event, FileScored))
    next(events)
    events.close()
    assert not table.exists()
    partial = table.with_name(table.name + results_table.PARTIAL_SUFFIX)
    with partial.open("ab") as stream:
        stream.write(b"\xff\xff\xff\xff\x10\x02")  # killed in the middle of a row

    class PreviousRows(ScoreTask):
        """Task that lists the inputs with a row of an earlier run."""

        seen: list[str] = []  # noqa: RUF012

        def run(self, item: FileJob, model: Model, previous: ResultRow | None) -> Iterator[Any]:
            """List the input, and score."""
            if previous is not None:
                self.seen.append(str(item.input))
            yield from super().run(item, model, previous)

    again = completed(list(runner.run_batch(units, PreviousRows(), model, table=table)))
    assert [str(item.input) for item in again] == [str(unit.input) for unit in units]
    assert PreviousRows.seen == [str(units[0].input)]
    assert again[0].score == first.score
    assert len(results_table.read_results(table)) == 2
    assert not partial.exists()
    PreviousRows.seen.clear()
    third = completed(list(runner.run_batch(units, PreviousRows(), model, table=table)))
    assert PreviousRows.seen == [str(unit.input) for unit in units]
    assert [item.score for item in third] == [item.score for item in again]
    soundfile.write(units[0].input, soundfile.read(units[0].input)[0][:12_000], 16_000)
    fourth = completed(list(runner.run_batch(units, PreviousRows(), model, table=table)))
    assert fourth[0].score != third[0].score


def test_score_of_an_earlier_version_is_computed_again(tmp_path: Path, takes: Path, model: Model) -> None:
    """Before the unlikeness, the details of a row were the list of windows."""
    path = min(takes.rglob("take*.wav"))
    (result,) = ScoreTask().run(FileJob(path), model, None)
    assert isinstance(result.event, FileScored)
    row = result.row
    details = json.loads(row.details or "")
    assert details["unlikeness"] == result.event.score.unlikeness > 0
    assert details["windows"] == list(result.event.score.windows)

    def scored_again(previous: ResultRow) -> FileScored:
        (last,) = ScoreTask().run(FileJob(path), model, previous)
        assert isinstance(last.event, FileScored)
        return last.event

    # A false score shows whether the row is used.
    assert scored_again(replace(row, scorer=7.0)).score.scorer == 7.0
    earlier = replace(row, scorer=7.0, details=json.dumps(details["windows"]))
    assert scored_again(earlier).score == result.event.score


def test_table_of_another_run_is_refused_without_overwrite(
    tmp_path: Path, takes: Path, run: Run, model_file: Path
) -> None:
    table = tmp_path / "t.parquet"
    command = ("enhance", takes, "-o", tmp_path / "out", "-m", model_file, "--parquet", table)
    assert run(*command, *FEW).code == 1
    before = table.read_bytes()
    again = run(*command, *FEW, "--amount", "0.5")
    assert again.code == 1
    assert f"{table} exists and belongs to another run" in again.err
    assert table.read_bytes() == before
    assert run(*command, *FEW, "--amount", "0.5", "--overwrite").code == 1
    assert table.read_bytes() != before
    table.write_text("mine")
    assert f"{table} exists and belongs to another run" in run(*command, *FEW).err
    assert table.read_text() == "mine"


def test_second_run_on_same_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with ResultsTable(path, {"a": 1}), pytest.raises(OutputError, match="another run is writing"):
        ResultsTable(path, {"a": 1}).__enter__()


def test_rows_survive_repeated_kills(tmp_path: Path) -> None:
    path, partial = tmp_path / "t.parquet", tmp_path / "t.parquet.partial"
    for turn in range(3):
        with ResultsTable(path, {"a": 1}) as table:
            assert sorted(table.rows) == [f"{k}.wav" for k in range(turn)]
            # Killed in the middle of a line.
            whole = partial.read_bytes()
            table.add(ResultRow(f"{turn}.wav", scorer=turn / 10))
            before = partial.read_bytes()
            assert before.startswith(whole)
            table.add(ResultRow("half.wav"))
            cut = partial.read_bytes()[: len(before) + 1 + 30 * turn]
        partial.write_bytes(cut)
    with ResultsTable(path, {"a": 1}) as table:
        table.add(ResultRow("1.wav", scorer=0.9))
        table.publish()
    assert {row.path: row.scorer for row in results_table.read_results(path)} == {
        "0.wav": 0.0, "1.wav": 0.9, "2.wav": 0.2
    }  # fmt: skip
    assert not partial.exists()
    with ResultsTable(path, {"a": 1}) as table:  # the published rows, and then those of the journal
        table.add(ResultRow("3.wav", scorer=0.3))
        content = partial.read_bytes()
    partial.write_bytes(content)
    with ResultsTable(path, {"a": 1}) as table:
        assert sorted(table.rows) == [f"{k}.wav" for k in range(4)]
        table.publish()
    assert len(results_table.read_results(path)) == 4


def test_table_has_row_groups_and_the_last_row_of_each_path(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with ResultsTable(path, {"a": 1}) as table:
        for number in range(10_000):
            table.add(ResultRow(f"{number}.wav", error="at first"))
        table.add(ResultRow("7.wav", scorer=0.5))
        assert not path.exists()
        table.publish()
    rows = results_table.read_results(path)
    assert len(rows) == 10_000
    assert [row for row in rows if row.error is None] == [ResultRow("7.wav", scorer=0.5)]
    assert pq.ParquetFile(path).num_row_groups > 1


def test_table_at_url_keeps_one_row_per_file_when_run_twice(
    takes: Path, bucket: str, run: Run, model_file: Path
) -> None:
    url = "memory://out/t.parquet"
    for _ in range(2):
        ran = run("enhance", bucket, "-o", "memory://out", "-m", model_file, *FEW, "--parquet", url)
        assert ran.code == 1
        with remote.local_copy(url) as path:
            assert len(results_table.read_results(path)) == 3


# --- Calls


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--workers", "0"), "--workers is 0: give a whole number from 1"),
        (("--workers", "1", "--scheduler", "tcp://a:1"), "use one of them"),
        (("--scheduler", "nonsense"), "is not an address of a scheduler"),
    ],
)
def test_invalid_worker_options_exit_with_code_2(
    tmp_path: Path, takes: Path, run: Run, model_file: Path, options: tuple[str, ...], line: str
) -> None:
    ran = run("enhance", takes, "-o", tmp_path / "out", "-m", model_file, *options)
    assert ran.code == 2
    assert line in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("absent", ["distributed", "pyarrow.parquet"])
def test_missing_extra_names_its_installation(
    tmp_path: Path, takes: Path, run: Run, model_file: Path,
    monkeypatch: pytest.MonkeyPatch, absent: str,
) -> None:  # fmt: skip
    import sys

    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "tonewood.batch.dask_backend", raising=False)
    ran = run("enhance", takes, "-o", tmp_path / "out", "-m", model_file, "--workers", 1)
    assert ran.code == 1
    assert "pip install '.[cluster]'" in ran.err
    assert not (tmp_path / "out").exists()


def test_url_scheme_without_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[s3\]'"):
        remote.url_exists("s3://takes/a.wav")


def test_local_copy_is_removed_and_errors_name_the_url(bucket: str) -> None:
    with remote.local_copy(f"{bucket}/bad.wav") as path:
        assert path.name == "bad.wav"
        assert path.read_text() == "no audio"
    assert not path.exists()
    with pytest.raises(TonewoodError, match="does not exist: check its name"):
        remote.local_copy(f"{bucket}/none.wav").__enter__()
