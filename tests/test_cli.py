import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np
import pytest
import soundfile

import tonewood
from tonewood import cli
from tonewood.cli import common
from tonewood.cli.listen import listen_app
from tonewood.cli.progress import BatchDisplay
from tonewood.enhancement.recipe import Recipe
from tonewood.enhancement.recipe import load_recipe as load_recipe
from tonewood.model.model import Model, load_model
from tonewood.setting_types import OptimizerName

Run = Callable[..., Any]
# `force`: the small instrument need not be like the tiny model's source.
FEW = (
    "--steps", "2", "--set", "search.stop_at_reference=false", "--set", "force=true",
    "--set", "certificate.control_steps=0",
)  # fmt: skip


@pytest.fixture
def take(tmp_path: Path, play: Callable[..., Any]) -> Path:
    """A good recording."""
    path = tmp_path / "good.wav"
    soundfile.write(path, play(1.2).T, 16_000)
    return path


def python(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **more)


# --- Commands, options and exit codes that scripts rely on

CONTROLS = "--amount --smooth --smooth-seconds --low --high --cut-only --boost-only"
OPTIONS = {
    "audit": "--reference --source -o -m --overwrite --json",
    "train": "--reference --source --manifest -o --seed --device --group-by --no-judge "
    "--predictor --onto --fix --no-cache --resume --set "
    "--overwrite --json",
    "enhance": f"-m -o {CONTROLS} --delta --curve --curve-instead --mid-side --link --together "
    "--method --prior --steps --only --between --from --to --seed --no-match --plot --set --dry-run "
    "--workers --scheduler --retries --parquet --quiet --overwrite --json",
    "render": "-o --overwrite --json",
    "apply": f"-m -o {CONTROLS} --static-only --same-mask --plot --quiet --overwrite --json",
    "diff": "--json",
    "export": "-o --ir --peq --frequencies --q --max-gain --graphic-eq --automation --plugin --format "
    "--rate --length --step --headroom --overwrite --json",
    "score": "-m --workers --scheduler --retries --parquet --quiet --overwrite --json",
    "info": "--json",
    "live": f"-m {CONTROLS} --delta --input --output --block --rate --bypass --list-devices --from -o "
    "--overwrite --json",
    "onnx": "-o --part --overwrite --json",
    "settings": "--json",
    "studio": "--port -m --host --no-browser --folder --root --upload-gb",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_has_help(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: tonewood {command} ")
    assert set(OPTIONS[command].split()) <= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", ran.out))


def run_and_list_loaded(modules: set[str], *call: str) -> subprocess.CompletedProcess[str]:
    """Run a command; the last line of its output is the exit code and which of some modules it loaded."""
    code = (
        f"import sys; from tonewood.cli import main; sys.argv = ['tonewood', *{call!r}]\n"
        "try: main()\n"
        f"except SystemExit as end: print(end.code, {modules!r} & set(sys.modules))"
    )
    ran = python("-c", code)
    assert ran.stderr == ""
    return ran


def test_info_does_not_load_torch() -> None:
    ran = run_and_list_loaded({"torch", "scipy"}, "info", "cello")
    assert ran.stdout.splitlines()[-1] == "0 set()"
    assert load_model("cello").digest[:16] in ran.stdout


def test_rendering_loads_neither_filter_design_nor_displays() -> None:
    """Both take longer to import than a short recording takes to render."""
    slow = {"pyloudnorm", "scipy.signal", "scipy.optimize", "scipy.stats", "scipy.ndimage", "rich"}
    modules = (
        "batch.enhance_file", "cli.progress", "enhancement.reapply", "enhancement.realtime", "export.diff",
        "export.export",
    )  # fmt: skip
    imports = "; ".join(f"import tonewood.{module}" for module in modules)
    ran = python("-c", f"import sys; {imports}; print({slow!r} & set(sys.modules))")
    assert (ran.stdout.strip(), ran.stderr) == ("set()", "")


def test_help_lists_every_command_without_loading_its_module() -> None:
    modules = {f"tonewood.cli.{command.module}" for command in cli.COMMANDS}
    ran = run_and_list_loaded({"torch", "numpy", "pydantic", "rich", *modules}, "--help")
    assert ran.stdout.splitlines()[-1] == "0 set()"
    assert all(re.search(rf"^  {name} ", ran.stdout, re.MULTILINE) for name in OPTIONS)
    assert "..." not in ran.stdout.partition("Commands:")[2]


@pytest.mark.parametrize("call", [["--version"], ["-h"], ["enhance", "-h"], ["listen", "serve", "-h"]])
def test_short_help_and_version(run: Run, call: list[str]) -> None:
    ran = run(*call)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(
        f"tonewood {tonewood.__version__}" if call == ["--version"] else "Usage: tonewood"
    )


def test_list_of_commands_is_complete() -> None:
    assert all(command.load().help for command in cli.COMMANDS)
    modules = [importlib.import_module(f"tonewood.cli.{name}") for name in {c.module for c in cli.COMMANDS}]
    defined = {name for module in modules for name in vars(module) if name.endswith("_command")}
    listed = {f"{command.name}_command" for command in cli.COMMANDS}
    of_listen = {below.callback.__name__ for below in listen_app.registered_commands if below.callback}
    assert defined - of_listen == listed - {"listen_command"}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_shell_completion_lists_commands(shell: str) -> None:
    request = {
        "_TONEWOOD_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "tonewood exp",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "tonewood exp",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    ran = python("-m", "tonewood", env={**os.environ, **request})
    assert ran.returncode == 0, ran.stderr
    assert {line.split("\t")[0] for line in ran.stdout.splitlines()} == {"explain", "export"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_calls_tonewood(shell: str) -> None:
    environment = {**os.environ, "_TONEWOOD_COMPLETE": f"source_{shell}"}
    ran = python("-m", "tonewood", env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "tonewood" in ran.stdout
    assert f"complete_{shell}" in ran.stdout


@pytest.mark.parametrize("command", [command.name for command in cli.COMMANDS])
def test_every_command_is_documented(command: str) -> None:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    assert any(f"tonewood {command}" in page.read_text("utf-8") for page in pages)


def test_python_m_tonewood_runs_the_command() -> None:
    ran = python("-m", "tonewood", "info", "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith("Usage: tonewood info ")


def test_default_model_is_cello(run: Run, take: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def note(name: str) -> NoReturn:
        names.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("tonewood.model.model.load_model", note)
    for command in (("enhance", take, "-o", take.parent), ("score", take)):
        assert run(*command).code == 130
    assert names == ["cello", "cello"]


# --- enhance, score, info


def test_enhance_prints_its_outputs(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--plot", *FEW)
    assert ran.code == 0, ran.err
    assert "━" not in ran.err  # no bars without a terminal
    for name in ("good.wav", "good.wav.png", "good.wav.recipe.json"):
        assert str(tmp_path / "out" / name) in ran.out
        assert (tmp_path / "out" / name).is_file()
    (scored,) = run("score", take, "-m", model_file, "--json").objects
    assert f" {scored['scorer']:.2f} → " in ran.out


def test_set_and_options_change_the_settings(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    out = tmp_path / "b.wav"
    ran = run(
        "enhance", take, "-o", out, "-m", model_file, "--prior", "none", "--amount", "0.5",
        "--seed", "9", "--no-match", "--set", "search.alpha=0.5", "--set", "render.max_gain_db=3",
        *FEW,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    settings = load_recipe(tmp_path / "b.wav.recipe.json").settings
    search, render = settings.search, settings.render
    assert (settings.seed, settings.prior.kind, search.steps, search.alpha) == (9, "none", 2, 0.5)
    assert (render.amount, render.match, render.max_gain_db) == (0.5, False, 3)


@pytest.mark.parametrize(
    ("prior", "dropped"), [((), ""), (("--prior", "neighbours"), ", not prior neighbours")]
)
def test_refused_recording_names_what_was_applied(
    tmp_path: Path, rng: np.random.Generator, run: Run, model_file: Path, prior: tuple[str, ...], dropped: str
) -> None:
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.1 * rng.standard_normal(16_000), 16_000)
    call = ("enhance", noise, "-m", model_file, "--steps", "1", *prior)
    ran = run(*call, "-o", tmp_path / "a.wav")
    text = f"at most the static mask{dropped}: pass --force to change the recording anyway"
    assert ran.code == 0, ran.err
    assert re.search(rf"  verdict  refused: .*\n  applied  {re.escape(text)}\n$", ran.out), ran.out
    assert run(*call, "-o", tmp_path / "b.wav", "--quiet").err.endswith(f"; applied: {text}\n")
    assert "  applied  " not in run(*call, "-o", tmp_path / "c.wav", "--force").out
    curve = tmp_path / "curve.csv"
    curve.write_text("hz,db\n100,-6\n6000,6\n")
    for option, applied in (
        ("--curve", "at most the static mask and the curve"),
        ("--curve-instead", "the curve"),
    ):
        ran = run(*call, "-o", tmp_path / f"{option}.wav", option, curve)
        assert f"  applied  {applied}{dropped}: pass --force " in ran.out


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_refused_recording_of_a_low_rate_is_told_so(
    tmp_path: Path, rng: np.random.Generator, run: Run, model_file: Path, rate: int
) -> None:
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.1 * rng.standard_normal(2 * rate), rate)
    ran = run("enhance", noise, "-o", tmp_path / "a.wav", "-m", model_file, *FEW)
    assert "  verdict  refused" in ran.out
    text = f"warning: {noise}: the recording has no frequencies above 4000 Hz"
    assert (text in ran.err) == (rate == 8_000)


@pytest.mark.parametrize("option", ["--mid-side", "--link off"])
def test_mask_of_each_channel_warns_of_mono(
    tmp_path: Path, take: Path, run: Run, model_file: Path, option: str
) -> None:
    ran = run("enhance", take, "-o", tmp_path / "b.wav", "-m", model_file, *FEW, *option.split())
    assert ran.code == 0
    assert f"warning: {take}: the recording has one channel, so {option} changes nothing\n" in ran.err


def test_diverging_search_is_named(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    out = tmp_path / "out"
    ran = run("enhance", take, "-o", out, "-m", model_file, *FEW, "--set", "search.beta=1e300")
    assert ran.code == 1
    assert ran.err.endswith(": lower search.learning_rate, search.alpha or search.beta\n")
    assert not out.exists()


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimizer_searches(tmp_path: Path, take: Path, run: Run, model_file: Path, name: str) -> None:
    chosen = ("--set", f"search.optimiser={name}")
    ran = run("enhance", take, "-o", tmp_path / "out", "-m", model_file, *FEW, *chosen)
    assert ran.code == 0, ran.err


def test_paper_method_runs(tmp_path: Path, take: Path, run: Run, model_file: Path) -> None:
    call = ("enhance", take, "-o", tmp_path / "out", "-m", model_file, "--json")
    ran = run(*call, "--method", "paper", "--steps", "2")
    assert ran.code == 0, ran.err
    recipe = load_recipe(tmp_path / "out" / "good.wav.recipe.json")
    assert recipe.settings.method == "paper"
    assert recipe.mask.rows == 257


@pytest.mark.parametrize("command", ["enhance", "score", "info"])
def test_file_that_is_not_a_model_is_named(tmp_path: Path, take: Path, run: Run, command: str) -> None:
    for name, reason in {
        "missing": "is neither a model file nor a bundled model: give a path, or one of: ",
        str(take): "is not a Tonewood model, or is damaged: name a model file, such as cello.tonewood, or a",
        str(tmp_path): "cannot be read (is a directory)",
    }.items():
        call: dict[str, tuple[object, ...]] = {
            "info": ("info", name),
            "score": ("score", take, "-m", name),
            "enhance": ("enhance", take, "-m", name, "-o", tmp_path / "out"),
        }
        ran = run(*call[command], "--json")
        assert ran.code == 1
        assert ran.out == ""
        assert ran.err.startswith(f"tonewood: {name} {reason}")
        assert ran.err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_score_prints_one_line_per_recording(take: Path, run: Run, model_file: Path) -> None:
    ran = run("score", take, "-m", model_file)
    assert (ran.code, ran.err) == (0, "")
    head, line = ran.out.splitlines()
    assert head == "scorer  judge  unlike  recording, by model tiny"
    assert re.fullmatch(rf" *[01]\.\d\d +[01]\.\d\d +\d+\.\d\d  {re.escape(str(take))}", line)
    (scored,) = run("score", take, "-m", model_file, "--json").objects
    assert (scored["model"], len(scored["digest"])) == ("tiny", 64)
    assert set(scored) == {"input", "model", "digest", "scorer", "judge", "windows", "unlikeness", "warnings"}
    assert scored["scorer"] == pytest.approx(np.mean(scored["windows"]))
    assert f"{scored['unlikeness']:.2f}" == line.split()[2]
    assert f"{scored['scorer']:.2f}" == line.split()[0]


def test_info_prints_the_card(run: Run, model: Model, model_file: Path) -> None:
    ran = run("info", model_file)
    assert (ran.code, ran.err) == (0, "")
    assert "reference  4 takes, 1.1 minutes (reference)\n" in ran.out
    assert f"{model.card.scorer.parameters:,} parameters" in ran.out
    # One column: every line's text starts at the same place.
    assert all(re.match(r"(?:[a-z]+ {2,}| {11})\S", line) for line in ran.out.splitlines())
    assert len({re.match(r"[a-z]* +", line)[0].__len__() for line in ran.out.splitlines()}) == 1  # type: ignore[index]
    assert model.has_way_guide
    assert "guide      whole-way guide for the paper's method (--method paper)\n" in ran.out
    (shown,) = run("info", model_file, "--json").objects
    assert shown["digest"] == model.digest
    assert shown["card"] == model.card.model_dump(mode="json")
    assert shown["settings"] == model.settings.model_dump(mode="json")


# --- Streams


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty module")
def test_progress_goes_to_the_terminal_and_results_to_the_pipe(
    tmp_path: Path, take: Path, model_file: Path
) -> None:
    import pty

    ours, theirs = pty.openpty()
    shown = bytearray()

    def watch() -> None:
        try:
            while piece := os.read(ours, 4096):
                shown.extend(piece)
        except OSError:
            pass

    other = tmp_path / "other.wav"
    shutil.copy(take, other)
    call = [sys.executable, "-m", "tonewood", "enhance", take, other, "-m", model_file]
    call += ["-o", tmp_path / "out", *FEW, "--json"]
    process = subprocess.Popen(
        list(map(str, call)),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    os.close(ours)
    assert process.returncode == 0, bytes(shown)
    assert b"steps" in shown
    assert "━".encode() in shown
    assert [json.loads(line)["input"] for line in out.splitlines()] == [str(take), str(other)]


def test_output_works_on_an_ascii_terminal(
    tmp_path: Path, take: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    call = ["tonewood", "enhance", take, "-o", tmp_path / "out", "-m", model_file, *FEW]
    monkeypatch.setattr(sys, "argv", list(map(str, call)))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    narrow.flush()
    written = narrow.buffer
    assert isinstance(written, io.BytesIO)
    assert rb"\u2192" in written.getvalue()


def test_progress_is_cleared_before_a_result_is_printed(
    tmp_path: Path, take: Path, run: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    clear = BatchDisplay.clear

    def cleared(display: BatchDisplay) -> None:
        happened.append("cleared")
        clear(display)

    monkeypatch.setattr(BatchDisplay, "clear", cleared)
    monkeypatch.setattr("tonewood.cli.enhance._print_enhanced", lambda *_: happened.append("printed"))
    monkeypatch.setattr(common, "print_failure", lambda *_: happened.append("printed"))
    missing = tmp_path / "missing.wav"
    assert run("enhance", take, missing, "-o", tmp_path / "out", "-m", model_file, *FEW).code == 1
    assert happened == ["cleared", "printed", "cleared", "printed", "cleared"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_command_removes_partial_outputs(
    run: Run, take: Path, tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:  # fmt: skip
    listings: list[list[str]] = []

    def end(self: Recipe, path: Path, **_: Any) -> None:
        listings.append([item.name for item in path.parent.iterdir()])
        signal.raise_signal(number)

    monkeypatch.setattr(Recipe, "save", end)
    previous = signal.signal(number, signal.SIG_DFL)
    try:
        ran = run("enhance", take, "-m", model_file, "-o", tmp_path / "out/a.wav", *FEW)
    finally:
        signal.signal(number, previous)
    assert ran.code == 128 + number
    (names,) = listings
    assert [name for name in names if name.startswith(".tonewood-")]
    assert list((tmp_path / "out").iterdir()) == []


def test_ignored_signals_stay_ignored(run: Run) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        assert run("--help").code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_terminated_server_closes_its_state(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from tonewood.studio.state import StudioState

    closed: list[Path] = []
    close = StudioState.close

    def record_close(self: StudioState) -> None:
        closed.append(self.database.folder)
        close(self)

    def ready(*_: object) -> str:
        signal.raise_signal(number)
        return "http://127.0.0.1/"

    monkeypatch.setattr(StudioState, "close", record_close)
    monkeypatch.setattr("tonewood.web.server_url", ready)
    # Without the application's own end, which a second signal cuts short.
    monkeypatch.setattr("tonewood.studio.app.create_secure_studio_app", lambda *_, **__: nothing)
    previous = signal.signal(number, signal.SIG_DFL)
    if number is signal.SIGINT:
        signal.signal(number, signal.default_int_handler)
    try:
        ran = run("studio", "--no-browser", "--port", "0", "--folder", tmp_path)
    finally:
        signal.signal(number, previous)
    assert closed
    assert ran.code == (130 if number is signal.SIGINT else 143)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application that starts and ends."""
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event.endswith("shutdown"):
            return
