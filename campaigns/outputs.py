"""Record the outputs of one version, and compare them with those of another.

A refactoring must not change a byte of what users get, and another implementation of the numerics
no more than rounding does. `record` runs the command line and the Python API of a source tree on
fixed inputs from the development corpora; `compare` lists the files that differ, and by how much:
sounds in dB relative to the first, texts by the largest difference of a number.

    python campaigns/outputs.py record OLD/src -o before
    python campaigns/outputs.py record src -o after
    python campaigns/outputs.py compare before after

Takes seven minutes for each version on two cores. Training times in model files, the names of
ONNX nodes and the seconds of a results table differ between runs; nothing else may.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

CORPORA = Path(os.environ.get("TONEWOOD_CORPORA", Path(__file__).parents[2] / "shared" / "corpora"))
MODELS = ("cello", "soundfont-cello")
# Reports name the files that they describe, so both versions must run in the same folder.
WORKING_FOLDER = Path(tempfile.gettempdir()) / "tonewood-recorded-outputs"

TINY_TRAINING = {
    "scorer.depth": 2,
    "scorer.width": 4,
    "training.steps": 40,
    "training.check_every": 10,
    "training.batch": 8,
    "priors.network.steps": 24,
    "priors.network.width": 8,
    "priors.neighbours.frames": 1024,
    "priors.neighbours.codes": 128,
    "guide.steps": 60,
}

API_CALLS = """
import numpy as np, soundfile, soxr, tonewood, torch
model = tonewood.load("cello")
samples, rate = soundfile.read("in/stereo44.wav", dtype="float32", always_2d=True)
score = tonewood.score(samples.T, rate, model)
result = tonewood.enhance(samples.T, rate, model)
stream = tonewood.Stream(model, rate, channels=2)
blocks = [
    stream.process(np.ascontiguousarray(samples.T[:, k : k + 1000])) for k in range(0, 200_000, 1000)
]
wave = torch.tensor(samples.T[None, :, : 3 * rate].copy(), requires_grad=True)
loss = tonewood.NeuralLoss(model, rate)(wave).sum()
loss.backward()
at_rates = {}
for name in ("cello", "soundfont-cello"):
    for other, channels in ((8000, 1), (16_000, 2), (22_050, 1), (44_100, 6), (96_000, 1), (192_000, 2)):
        wave = soxr.resample(samples[: 5 * rate, 0], rate, other)
        take = np.stack([np.roll(wave, 37 * k) * (1 - 0.1 * k) for k in range(channels)])
        at_rates[f"{name} at {other} Hz, {channels} channels"] = tonewood.enhance(take, other, name).samples
np.savez(
    "api.npz",
    **at_rates,
    score=[score.scorer, score.judge, *score.windows],
    samples=result.samples,
    mask=result.mask.gain_db,
    applied=result.applied.gain_db,
    stream=np.concatenate([*blocks, stream.flush()], axis=1),
    loss=loss.item(),
    gradient=wave.grad.numpy(),
)
"""


def write_inputs(folder: Path) -> None:
    """Cut short recordings, training folders and pairs from the corpora."""

    def cut(source: Path, name: str, seconds: float, *, stereo: bool = False) -> None:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
        samples = samples[: round(seconds * rate)]
        if stereo:
            samples = np.concatenate([samples, 0.6 * np.roll(samples, 37, axis=0)], axis=1)[:, :2]
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype="PCM_24" if path.suffix == ".wav" else None)

    def takes(folder: str) -> list[Path]:
        return sorted((CORPORA / folder).glob("*"))

    source, reference = takes("real_cello/test/cheap"), takes("real_cello/test/good")
    cut(source[0], "in/real.wav", 8)
    cut(source[1], "in/other.wav", 6)
    cut(reference[0], "in/good.wav", 6)
    cut(takes("real_cello_44k1/test/cheap")[0], "in/stereo44.wav", 7, stereo=True)
    cut(takes("soundfont_cello_mit/test/cheap")[0], "in/sf.flac", 7)
    for side, name in (("reference", "good"), ("source", "cheap")):
        for number, take in enumerate(takes(f"soundfont_cello_mit/train/{name}")[:3]):
            cut(take, f"train/{side}/take{number}.wav", 40)
    for number in range(2):
        cut(source[number], f"pairs/source/p{number}.wav", 8)
        cut(reference[number], f"pairs/reference/p{number}.wav", 8)


def command_lines() -> list[tuple[str, ...]]:
    """Return the commands to run, in an order that makes what later ones need."""
    return [*(line for model in MODELS for line in model_commands(model)), *training_commands()]


def enhance_commands(model: str) -> list[tuple[str, ...]]:
    """Return the variants of `enhance` with a bundled model."""
    recordings = ("in/real.wav", "in/stereo44.wav", "in/sf.flac")
    one = (recordings[0] if model == "cello" else recordings[2],)
    passage = ("--only", "bands", "--between", "200:4000", "--from", "1", "--to", "5")
    variants: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "default": (recordings, ("--plot",)),
        "steps0": (recordings, ("--steps", "0")),
        "predicted": (recordings, ("--method", "predicted")),
        "paper": (one, ("--method", "paper")),
        "bands": (one, passage),
        "force": (("in/good.wav",), ("--force", "--steps", "5", "--amount", "0.5")),
    }
    return [
        ("enhance", *inputs, "-m", model, "-o", f"{model}/{name}", *options, "--json")
        for name, (inputs, options) in variants.items()
    ]


def model_commands(model: str) -> list[tuple[str, ...]]:
    """Return the commands that use a bundled model."""
    recipe, output = f"{model}/default/real.wav.recipe.json", f"{model}/default/real.wav"
    return [
        *enhance_commands(model),
        ("score", "in", "-m", model, "--json"),
        ("score", "in", "-m", model),
        ("render", recipe, "in/real.wav", "-o", f"{model}/again.wav", "--json"),
        ("apply", recipe, "in/other.wav", "-m", model, "-o", f"{model}/apply", "--json"),
        ("apply", recipe, "in/other.wav", "-m", model, "-o", f"{model}/static", "--static-only"),
        ("apply", recipe, "in/real.wav", "-m", model, "-o", f"{model}/same", "--same-mask"),
        ("diff", output, f"{model}/steps0/real.wav", "--json"),
        ("export", output, "--ir", "linear", "-o", f"{model}/linear.wav"),
        ("export", output, "--ir", "minimum", "-o", f"{model}/minimum.wav"),
        ("export", output, "--automation", "-o", f"{model}/automation.csv"),
        ("export", output, "--automation", "--format", "jsfx", "-o", f"{model}/eq.jsfx"),
        ("export", model, "--peq", "8", "-o", f"{model}/model.txt"),
        ("info", model),
        ("info", model, "--json"),
        ("info", model, "--markdown"),
        ("explain", "in/real.wav", "-m", model, "-o", f"{model}/explain.html", "--json"),
        ("onnx", model, "-o", f"{model}/scorer.onnx"),
        *(
            ("export", output, "--peq", "6", "--format", form, "-o", f"{model}/{form}.txt")
            for form in ("apo", "autoeq", "rew", "camilladsp")
        ),
    ]


def training_commands() -> list[tuple[str, ...]]:
    """Return the commands on folders, and those that fail."""
    folders = ("--reference", "train/reference", "--source", "train/source")
    tiny = [text for name, value in TINY_TRAINING.items() for text in ("--set", f"{name}={value}")]
    fix = ("--fix", "level,bandwidth,noise", "--no-cache")
    return [
        ("audit", *folders, "--json", "-o", "audit.html"),
        ("train", *folders, "-o", "tiny.tonewood", "--seed", "0", "--json", *tiny),
        ("train", *folders, "-o", "fixed.tonewood", "--seed", "1", *fix, *tiny),
        ("enhance", "in/sf.flac", "-m", "tiny.tonewood", "-o", "tiny", "--json"),
        ("evaluate", "--pairs", "pairs/source", "pairs/reference", "--json", "-o", "report"),
        ("enhance", "in/real.wav", "in/sf.flac", "-o", "workers", "--workers", "2", "--steps", "2"),
        ("enhance", "in/missing.wav", "in/real.wav", "-o", "failed", "--steps", "1", "--json"),
        ("enhance", "in/real.wav", "-m", "nosuch", "-o", "failed"),
    ]


def record(source: Path, out: Path) -> None:
    """Run all commands with the package in `source`, and keep what they write in `out`."""
    if not CORPORA.is_dir():
        sys.exit(f"{CORPORA} does not exist: set TONEWOOD_CORPORA to the development corpora")
    shutil.rmtree(WORKING_FOLDER, ignore_errors=True)
    write_inputs(WORKING_FOLDER)
    environment = {
        **os.environ,
        "PYTHONPATH": str(source.resolve()),
        "TONEWOOD_CACHE": str(WORKING_FOLDER / "cache"),
        "OMP_NUM_THREADS": "1",
        "TERM": "dumb",
    }
    log = []
    for line in [*command_lines(), ("-c", API_CALLS)]:
        python = [sys.executable, *(() if line[0] == "-c" else ("-m", "tonewood"))]
        run = subprocess.run(
            [*python, *line], cwd=WORKING_FOLDER, env=environment, capture_output=True, text=True
        )
        name = "Python API" if line[0] == "-c" else " ".join(line)
        log.append({"name": name, "code": run.returncode, "out": run.stdout, "err": run.stderr})
        print(run.returncode, name, flush=True)
    shutil.rmtree(WORKING_FOLDER / "cache", ignore_errors=True)
    (WORKING_FOLDER / "log.json").write_text(json.dumps(log, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(WORKING_FOLDER, out)


def numbers(text: str) -> list[str]:
    """Return the numbers of a text as they are written, without running times."""
    text = re.sub(r'("seconds": |; )[\d.]+( s)?', r"\1", text)
    return re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)


def difference(before: Path, after: Path) -> str:
    """Say by how much two files of other content differ."""
    if before.suffix in (".wav", ".flac"):
        return array_difference(*(soundfile.read(path, always_2d=True)[0] for path in (before, after)))
    if before.suffix == ".npz":
        arrays = [np.load(path) for path in (before, after)]
        return ", ".join(f"{name} {array_difference(*(each[name] for each in arrays))}" for name in arrays[0])
    try:
        return number_difference(*(numbers(path.read_text()) for path in (before, after)))
    except UnicodeDecodeError:
        return f"{before.stat().st_size} and {after.stat().st_size} bytes"


def array_difference(before: NDArray[Any], after: NDArray[Any]) -> str:
    """Return the rms of the difference of two arrays, in dB relative to the first."""
    if before.shape != after.shape:
        return f"{before.shape} and {after.shape}"
    power, error = (np.square(x, dtype=np.float64).mean() for x in (before, after - before))
    return f"{10 * np.log10(error / (power + 1e-30) + 1e-30):.0f} dB"


def number_difference(before: list[str], after: list[str]) -> str:
    """Say by how much two lists of numbers differ."""
    if before == after:
        return "same numbers"
    if len(before) != len(after):
        return f"{len(before)} and {len(after)} numbers"
    largest = max(abs(float(a) - float(b)) for a, b in zip(before, after, strict=True))
    return f"numbers differ by up to {largest:.2g}"


def compare(before: Path, after: Path) -> int:
    """Print the differences between two recordings; return their number."""
    files = {
        folder: {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
        for folder in (before, after)
    }
    differing = [f"{path}: only in one" for path in sorted(files[before] ^ files[after])]
    shared = sorted((files[before] & files[after]) - {Path("log.json")})
    for path in shared:
        contents = [(folder / path).read_bytes() for folder in (before, after)]
        if contents[0] == contents[1]:
            continue
        differing.append(f"{path}: {difference(before / path, after / path)}")
    logs: list[list[dict[str, Any]]] = [
        json.loads((folder / "log.json").read_text()) for folder in (before, after)
    ]
    for old, new in zip(*logs, strict=True):
        if old["code"] != new["code"]:
            differing.append(f"{old['name']}: exit code {old['code']} became {new['code']}")
        texts = [sorted(numbers(log["out"])) for log in (old, new)]
        if texts[0] != texts[1]:
            differing.append(f"{old['name']}: standard output: {number_difference(*texts)}")
    print(*differing, f"{len(shared)} files compared", sep="\n")
    return len(differing)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Record and compare outputs of two versions.")
    commands = parser.add_subparsers(required=True, dest="command")
    recording = commands.add_parser("record", help="run all commands of a source tree")
    recording.add_argument("source", type=Path, help="folder that holds the package, as in src")
    recording.add_argument("-o", "--out", type=Path, required=True, help="folder of the outputs")
    comparing = commands.add_parser("compare", help="list what differs")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        record(options.source, options.out)
    else:
        sys.exit(min(1, compare(options.before, options.after)))


if __name__ == "__main__":
    main()
