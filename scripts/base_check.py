"""Use a model in an environment without torch and without the developers' tools.

    python scripts/base_check.py

Runs commands and the Python interface on the bundled example, and checks that `train` names its installation.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

import tonewood

EXAMPLE = Path(tonewood.__file__).parent / "bundled" / "example.flac"
MODEL = "soundfont-cello"


def main() -> None:
    """Run the commands, each in a process of its own, then the Python interface."""
    if importlib.util.find_spec("torch") is not None:
        sys.exit("torch is installed: use an environment without it")
    with tempfile.TemporaryDirectory() as folder:
        output, other = Path(folder) / "out.flac", Path(folder) / "other.flac"
        recipe = output.with_name("out.flac.recipe.json")
        run("info", MODEL)
        run("score", EXAMPLE, "-m", MODEL)
        run("enhance", EXAMPLE, "-m", MODEL, "-o", output, "--plot")
        run("render", recipe, EXAMPLE, "-o", other)
        if output.read_bytes() != other.read_bytes():
            sys.exit("render gives other bytes than enhance")
        run("export", recipe, "--peq", "5", "-o", Path(folder) / "out.txt")
        run("live", "-m", MODEL, "--from", EXAMPLE, "-o", Path(folder) / "live.wav")
        refused = call("train", "--reference", folder, "--source", folder, "-o", Path(folder) / "m.tonewood")
        if refused.returncode != 1 or "pip install '.[train]'" not in refused.stderr:
            sys.exit(f"train does not name its installation: {refused.stderr}")
    samples, rate = soundfile.read(EXAMPLE, dtype="float32", always_2d=True)
    print(tonewood.score(samples.T, rate, MODEL))


def call(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Return a finished command."""
    command = (sys.executable, "-m", "tonewood", *map(str, words))
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(*words: str | Path) -> None:
    """Run a command, and end with its errors if it fails."""
    process = call(*words)
    print(" ".join(map(str, words)), process.stdout, sep="\n")
    if process.returncode:
        sys.exit(process.stderr)


if __name__ == "__main__":
    main()
