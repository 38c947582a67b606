"""Commands to kill, on recordings of a few seconds."""

import subprocess
import sys
from pathlib import Path

import soundfile

from campaigns.harness.audio import instrument
from campaigns.harness.crash.runs import Command, environment
from campaigns.harness.training import TINY_TRAINING, set_options
from tonewood.audio_io import tags

RATE = 16_000
MODEL = "soundfont-cello"
SHORT_OPTIONS = ("--steps", "3", "--force")
MINIMAL_OPTIONS = ("--prior", "static", "--steps", "0", "--force")


def make_inputs(root: Path, files: int = 4, seconds: float = 16.0) -> Path:
    """Write recordings to enhance, two training folders and two conditions of a listening test."""
    for number in range(files):
        path = root / "takes" / f"day{number % 2}" / f"take{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, instrument(2.0 + number / 2, seed=number).T, RATE)
    for number, (side, formant) in enumerate((("reference", 600.0), ("source", 2_500.0))):
        (root / side).mkdir()
        for take in range(4):
            wave = instrument(seconds, formant_hz=formant, seed=10 * number + take)
            soundfile.write(root / side / f"take{take}.wav", wave.T, RATE)
    for number, condition in enumerate(("good", "plain")):
        (root / "conditions" / condition).mkdir(parents=True)
        for piece in range(2):
            wave = instrument(6.0, formant_hz=600.0 + 1_900.0 * number, seed=piece)
            soundfile.write(root / "conditions" / condition / f"p{piece}.wav", wave.T, RATE)
    tagged = root / "tagged.flac"
    soundfile.write(tagged, instrument(2.0, seed=9).T, RATE)
    tags.write_tags(tagged, tags.Tags((b"TITLE=A take",)))
    return root


def all_commands(inputs: Path, options: tuple[str, ...] = SHORT_OPTIONS) -> dict[str, Command]:
    """Return all commands by name."""
    takes, tagged = inputs / "takes", inputs / "tagged.flac"
    sides = ["--reference", str(inputs / "reference"), "--source", str(inputs / "source")]
    conditions = [str(inputs / "conditions" / name) for name in ("good", "plain")]

    def single(work: Path) -> list[str]:
        return ["enhance", str(tagged), "-m", MODEL, "-o", str(work / "out/take.flac"), *options]

    def folder(work: Path) -> list[str]:
        return ["enhance", str(takes), "-m", MODEL, "-o", str(work / "out"), *options]

    def train(work: Path) -> list[str]:
        return ["train", *sides, *set_options(*TINY_TRAINING), "-o", str(work / "out/ours.tonewood")]

    def listen_new(work: Path) -> list[str]:
        listen_options = ["--seconds", "5", "--no-checks", "--seed", "3"]
        return ["listen", "new", *conditions, *listen_options, "-o", str(work / "out/test")]

    def with_table(work: Path) -> list[str]:
        return [*folder(work), "--parquet", str(work / "out/table.parquet")]

    def with_workers(work: Path) -> list[str]:
        return [*folder(work), "--workers", "1"]

    commands = [
        Command("enhance, a file", single, single, inputs),
        Command("enhance, a folder", folder, folder, inputs),
        Command("enhance, --parquet", with_table, with_table, inputs),
        Command("enhance, --workers 1", with_workers, with_workers, inputs),
        Command("train", train, lambda work: [*train(work), "--resume"], inputs, may_report_existing=True),
        Command("listen new", listen_new, listen_new, inputs, may_report_existing=True),
    ]
    return {command.name: command for command in commands}


def make_test(inputs: Path, out: Path) -> Path:
    """Build a listening test to serve."""
    work = out.with_name(f"{out.name}-work")
    (work / "tmp").mkdir(parents=True)
    conditions = [str(inputs / "conditions" / name) for name in ("good", "plain")]
    command = [sys.executable, "-m", "tonewood", "listen", "new", *conditions, "-o", str(out)]
    subprocess.run(
        [*command, "--seconds", "5", "--per-listener", "4", "--no-checks"],
        check=True,
        capture_output=True,
        env=environment(work, inputs),
    )
    return out
