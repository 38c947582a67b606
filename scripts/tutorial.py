"""Make the sounds, pictures and outputs of `docs/tutorial.md` by running its commands.

    python scripts/tutorial.py

Every `console` block of the page is run, in order, in one empty folder that holds `take.flac`, a
piece of the bundled example; the output replaces the output on the page. Sounds go to
`docs/sounds/`, pictures, in 256 colours, to `docs/images/tutorial-*.png`.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
EXAMPLE = ROOT / "src" / "tonewood" / "bundled" / "example.flac"
START, END = 5.0, 9.5
"""Seconds of the example: one phrase, within MOST_BYTES as FLAC."""
SOUNDS = ("take.flac", "enhanced.flac", "half.flac", "tilt.flac")
MOST_BYTES = 200_000
WIDTH = 1200
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def main() -> None:
    """Run the commands of the page, keep its files, and write their output into it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cut(place / "take.flac")
        page = BLOCK.sub(lambda match: run_block(match[1], place), PAGE.read_text("utf-8"))
        for name in SOUNDS:
            keep_sound(place / name, ROOT / "docs" / "sounds" / name)
        for picture in sorted(place.glob("*.png")):
            name = f"tutorial-{picture.name.split('.')[0]}.png"
            keep_picture(picture, ROOT / "docs" / "images" / name)
    PAGE.write_text(page, "utf-8")


def cut(path: Path) -> None:
    """Write the recording that the page starts with."""
    samples, rate = soundfile.read(EXAMPLE, dtype="int16", always_2d=True)
    piece = samples[round(START * rate) : round(END * rate)]
    soundfile.write(path, piece, rate, subtype="PCM_16")


def run_block(block: str, place: Path) -> str:
    """Run the lines of a block that start with `$`; return it with their output."""
    output_lines = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        call = line[2:].split()
        assert call[0] == "tonewood", line
        ran = subprocess.run(
            [sys.executable, "-m", *call],
            cwd=place,
            env={**os.environ, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=True,
        )
        output_lines += [line, ran.stdout.rstrip()]
    return "```console\n" + "\n".join(output_lines) + "\n```"


def keep_sound(source: Path, path: Path) -> None:
    """Copy a sound, if it is small enough for a page."""
    size = source.stat().st_size
    assert size <= MOST_BYTES, f"{source.name} has {size} bytes: choose a shorter piece"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(source, path)
    print(f"{path} {size // 1000} kB")


def keep_picture(source: Path, path: Path) -> None:
    """Write a picture as wide as a page, in 256 colours."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        # Median cut would merge the few pixels of strong cuts with grey.
        reduced = small.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        reduced.save(path, "PNG", optimize=True)
    print(f"{path} {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
