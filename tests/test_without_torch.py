"""Using a model needs no torch; what needs it names the installation in one line.

Each test runs a fresh process in which torch cannot be imported, as after a plain `pip install`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.studio.conftest import Live, upload_recording, wait_for_job

EXAMPLE = Path(__file__).parents[1] / "src/tonewood/bundled/example.flac"
MODEL = "soundfont-cello"
# Python imports a module of this name when it starts, in worker processes too.
BLOCKER = """
import sys

class TorchBlocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, TorchBlocker())
"""
COMMAND = """
import sys
FORBIDDEN = set(sys.argv.pop(1).split(","))
from tonewood.cli import main
sys.argv = ["tonewood", *sys.argv[1:]]
try:
    main()
finally:
    assert not FORBIDDEN & set(sys.modules)
"""
API = """
import sys
import numpy as np
import soundfile
import tonewood
samples, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
model = tonewood.load("soundfont-cello")
"""

Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which no Python process can import torch."""
    folder = tmp_path_factory.mktemp("blocker")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    paths = (str(folder), *filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def command(without_torch: dict[str, str]) -> Process:
    """Return a function that runs a command without torch."""

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        call = (sys.executable, "-c", COMMAND, "torch", *map(str, words))
        return subprocess.run(call, capture_output=True, text=True, env=without_torch)

    return run


@pytest.fixture(scope="module")
def python(without_torch: dict[str, str], take: Path) -> Callable[[str], str]:
    """Return a function that runs code after `API` without torch, and returns what it prints."""

    def run(code: str) -> str:
        code = f"{API}{code}\nassert 'torch' not in sys.modules"
        call = (sys.executable, "-c", code, str(take))
        ran = subprocess.run(call, capture_output=True, text=True, env=without_torch)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two seconds of the example."""
    samples, rate = soundfile.read(EXAMPLE, stop=2 * soundfile.info(EXAMPLE).samplerate)
    path = tmp_path_factory.mktemp("in") / "take.wav"
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture(scope="module")
def enhanced(command: Process, take: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enhance the take without torch, with a picture; its recipe is beside the output."""
    output = tmp_path_factory.mktemp("out") / "take.wav"
    ran = command("enhance", take, "-o", output, "-m", MODEL, "--steps", 2, "--plot")
    assert ran.returncode == 0, ran.stderr
    return output


# --- Commands that use a model


def test_enhance_writes_sound_recipe_and_picture(enhanced: Path, take: Path) -> None:
    names = {path.name for path in enhanced.parent.iterdir()}
    assert names == {"take.wav", "take.wav.recipe.json", "take.wav.png"}
    before, after = soundfile.read(take)[0], soundfile.read(enhanced)[0]
    assert before.shape == after.shape
    assert not np.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize(
    "call",
    [
        "info {model}",
        "settings",
        "score {take} -m {model} --json",
        "enhance {take} -m {model} -o {out}.wav --method predicted",
        "enhance {take} -m {model} -o {out} --steps 0 --workers 1",
        "render {recipe} {take} -o {out}.wav",
        "apply {recipe} {take} -o {out}.wav",
        "apply {recipe} {take} -o {out}.wav --same-mask",
        "diff {recipe} {recipe}",
        "diff {model} cello",
        "export {recipe} --ir minimum -o {out}.wav",
        "export {model} --peq 5 -o {out}.txt",
        "export {recipe} --automation -o {out}.jsfx",
        "live -m {model} --from {take} -o {out}.wav",
    ],
)
def test_command_needs_no_torch(
    command: Process, take: Path, enhanced: Path, tmp_path: Path, call: str
) -> None:
    recipe = enhanced.with_name("take.wav.recipe.json")
    words = call.format(model=MODEL, take=take, recipe=recipe, out=tmp_path / "out").split()
    ran = command(*words)
    assert ran.returncode == 0, ran.stderr
    assert all(path.stat().st_size for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("call", "forbidden"),
    [
        ("--help", "torch,numpy,scipy,soundfile,pydantic"),
        ("info {model}", "torch,scipy,soundfile"),
        ("score {take} -m {model}", "torch"),
        ("enhance {take} -m {model} -o {out} --steps 0", "torch"),
    ],
)
def test_command_loads_no_torch_where_it_is_installed(
    call: str, forbidden: str, take: Path, tmp_path: Path
) -> None:
    words = call.format(model=MODEL, take=take, out=tmp_path / "out.wav").split()
    ran = subprocess.run([sys.executable, "-c", COMMAND, forbidden, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# --- Python interface


def test_evaluate_needs_no_torch(command: Process, enhanced: Path, take: Path, tmp_path: Path) -> None:
    """A pair of the take and its enhancement, which are simultaneous."""
    for folder, path in (("source", take), ("reference", enhanced)):
        (tmp_path / folder).mkdir()
        shutil.copy(path, tmp_path / folder / "take.wav")
    sides = (tmp_path / "source", tmp_path / "reference")
    ran = command("evaluate", "--pairs", *sides, "-m", MODEL, "-o", tmp_path / "report")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "report" / "index.html").exists()


def test_audit_needs_no_torch(command: Process, tmp_path: Path) -> None:
    samples, rate = soundfile.read(EXAMPLE)
    for folder, gain in (("reference", 1.0), ("source", 0.5)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            part = gain * np.roll(samples, number * rate)[: 4 * rate]
            soundfile.write(tmp_path / folder / f"{number}.wav", part, rate)
    ran = command("audit", "--reference", tmp_path / "reference", "--source", tmp_path / "source", "--json")
    assert ran.returncode == 0, ran.stderr


def test_enhance_and_score_in_python(python: Callable[[str], str]) -> None:
    printed = python(
        "from tonewood.settings import EnhanceSettings\n"
        "settings = EnhanceSettings().replace(search=dict(steps=1))\n"
        "before = tonewood.score(samples.T, rate, model)\n"
        "result = tonewood.enhance(samples.T, rate, model, settings=settings)\n"
        "print(result.samples.shape == samples.T.shape, result.scorer.after < before.scorer)\n"
    )
    assert printed == "True True\n"


def test_stream_in_python(python: Callable[[str], str]) -> None:
    printed = python(
        "stream = tonewood.Stream(model, rate, samples.shape[1])\n"
        "output = np.concatenate([stream.process(samples.T[:, :9_000]), stream.flush()], axis=1)\n"
        "print(output.shape[1] >= 9_000, bool(np.isfinite(output).all()))\n"
    )
    assert printed == "True True\n"


def test_names_that_need_torch_raise_one_line(python: Callable[[str], str]) -> None:
    names = ("NeuralLoss", "FeatureLoss", "train")
    attempts = [
        f"try:\n    {name}('cello', 44_100)\n"
        "except TonewoodError as error:\n    print(type(error).__name__, error)\n"
        for name in names
    ]
    printed = python("from tonewood import *\n" + "".join(attempts))
    assert printed.splitlines() == [
        f"MissingExtraError tonewood.{name} needs PyTorch: pip install '.[train]'" for name in names
    ]


# --- Commands that need torch


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        ("train --reference . --source . -o {out}.tonewood", "train"),
        ("explain {take} -o {out}.html", "train"),
        ("search --reference . --source . -o {out}", "train"),
        ("reproduce --corpus . -o {out}", "train"),
        ("onnx cello -o {out}.onnx", "onnx"),
    ],
)
def test_command_that_needs_torch_says_so(
    command: Process, take: Path, tmp_path: Path, call: str, extra: str
) -> None:
    words = call.format(take=take, out=tmp_path / "out").split()
    ran = command(*words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"tonewood: {words[0]} needs PyTorch: pip install '.[{extra}]'\n"
    assert not list(tmp_path.iterdir())


# --- The studio


@pytest.fixture(scope="module")
def studio(
    without_torch: dict[str, str], take: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """Run a studio without torch; its root holds two folders to train from."""
    root = tmp_path_factory.mktemp("root")
    for side in ("good", "plain"):
        (root / side).mkdir()
        (root / side / "take.wav").write_bytes(take.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", without_torch["PYTHONPATH"])
        server = Live(tmp_path_factory.mktemp("studio"), root)
    yield server
    server.stop()


def test_studio_enhances_and_plays(studio: Live, take: Path) -> None:
    with studio.client() as client:
        base = f"/api/sessions/{upload_recording(client, take)['id']}"
        job = wait_for_job(client, client.post(f"{base}/enhance", json={"steps": 1}).json())
        assert job["state"] == "done", job
        for path in ("sound/output?start=0&stop=9000", "tiles/input/mel/0/0", "tiles/mask/log/0/0"):
            answer = client.get(f"{base}/{path}")
            assert answer.status_code == 200, answer.text


def test_studio_says_what_needs_torch(studio: Live, take: Path) -> None:
    with studio.client() as client:
        base = f"/api/sessions/{upload_recording(client, take)['id']}"
        job = wait_for_job(client, client.post(f"{base}/explain").json())
    assert job["state"] == "failed"
    assert job["told"]["error"] == "explain needs PyTorch: pip install '.[train]'"


# --- The environment of these tests


def test_torch_cannot_be_imported(without_torch: dict[str, str]) -> None:
    code = "try:\n    import torch\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without_torch)
    assert ran.stdout == "torch\n"
