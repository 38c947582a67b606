"""Commands that are killed, on recordings of seconds."""

import subprocess
import sys
from pathlib import Path

import soundfile

from campaigns.harness.audio import instrument
from campaigns.harness.crash.runs import Scene, environment
from tonewood.audio_io import tags

RATE = 16_000
MODEL = "soundfont-cello"
SHORT = ("--steps", "3", "--force")
LEAST = ("--prior", "static", "--steps", "0", "--force")
TINY = (
    "scorer.depth=2", "scorer.width=4", "scorer.crop_seconds=1.0", "training.steps=40",
    "training.check_every=4", "training.batch=8", "training.held_out=0.25",
    "priors.neighbours.frames=512", "priors.neighbours.codes=64", "priors.network.steps=20",
    "priors.network.width=8", "guide.steps=20", "guide.width=8",
)  # fmt: skip


def make_inputs(root: Path, files: int = 4, seconds: float = 16.0) -> Path:
    """Recordings to enhance, in two folders; two folders to learn from; two conditions."""
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


def scenes(inputs: Path, few: tuple[str, ...] = SHORT) -> dict[str, Scene]:
    """All of them, by name."""
    takes, tagged = inputs / "takes", inputs / "tagged.flac"
    sets = [word for it in TINY for word in ("--set", it)]
    sides = ["--reference", str(inputs / "reference"), "--source", str(inputs / "source")]
    conditions = [str(inputs / "conditions" / it) for it in ("good", "plain")]

    def single(work: Path) -> list[str]:
        return ["enhance", str(tagged), "-m", MODEL, "-o", str(work / "out/take.flac"), *few]

    def folder(work: Path) -> list[str]:
        return ["enhance", str(takes), "-m", MODEL, "-o", str(work / "out"), *few]

    def train(work: Path) -> list[str]:
        return ["train", *sides, *sets, "-o", str(work / "out/ours.tonewood")]

    def new(work: Path) -> list[str]:
        given = ["--seconds", "5", "--no-checks", "--seed", "3"]
        return ["listen", "new", *conditions, *given, "-o", str(work / "out/test")]

    def plain(work: Path) -> list[str]:
        return [*folder(work), "--parquet", str(work / "out/table.parquet")]

    def spread(work: Path) -> list[str]:
        return [*folder(work), "--workers", "1"]

    made = [
        Scene("enhance, a file", single, single, inputs),
        Scene("enhance, a folder", folder, folder, inputs),
        Scene("enhance, --parquet", plain, plain, inputs),
        Scene("enhance, --workers 1", spread, spread, inputs),
        Scene("train", train, lambda work: [*train(work), "--resume"], inputs, settled=True),
        Scene("listen new", new, new, inputs, settled=True),
    ]
    return {it.name: it for it in made}


def make_test(inputs: Path, out: Path) -> Path:
    """A listening test, to be served."""
    work = out.with_name(f"{out.name}-work")
    (work / "tmp").mkdir(parents=True)
    conditions = [str(inputs / "conditions" / it) for it in ("good", "plain")]
    command = [sys.executable, "-m", "tonewood", "listen", "new", *conditions, "-o", str(out)]
    subprocess.run(
        [*command, "--seconds", "5", "--per-listener", "4", "--no-checks"],
        check=True,
        capture_output=True,
        env=environment(work, inputs),
    )
    return out
