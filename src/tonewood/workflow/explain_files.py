"""Explanations on paths: which recording becomes which page, one after the other, and the table."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonewood.errors import CallError, FolderError, shown
from tonewood.evaluation.weights import Interval, Weight, means, weights
from tonewood.files.audio import Recording, audio_files, read, write
from tonewood.files.formats import AudioFormat
from tonewood.files.modelfile import Model
from tonewood.files.output import check_free, write_bytes, write_text
from tonewood.files.places import Place
from tonewood.scoring import saliency
from tonewood.scoring.saliency import Method
from tonewood.signal import parts as segmentation
from tonewood.workflow import explain_page, picture
from tonewood.workflow.batch import all_or_none, check_outputs
from tonewood.workflow.enhance import mono_at
from tonewood.workflow.explain import (
    NAMES,
    OCTAVES,
    Explanation,
    Figures,
    Side,
    check_side,
    explain,
    listen,
)
from tonewood.workflow.layout import Failed, Job, same
from tonewood.workflow.page import Sound

INDEX, TABLE = "index.html", "table.json"
PAGES = (".png", ".html")
_PLAYED = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg"}
_EMBEDDED = 20_000_000  # bytes; a browser chokes on a page of more


class Asked(NamedTuple):
    """What is to be explained, and how."""

    side: Side = "reference"
    method: Method = "cam"
    parts: bool = True
    listen: bool = False


@dataclass(frozen=True, eq=False)
class Explained:
    """A recording that was explained.

    Parameters
    ----------
    output : Path
        Page or picture.
    sounds : tuple of Path
        What speaks for the class, and what that leaves; empty if not asked for, or if nothing does.
    parts : tuple of Weight
        Its own table.
    """

    input: Place
    output: Path
    sounds: tuple[Path, ...]
    explanation: Explanation
    parts: tuple[Weight, ...]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Tabulated:
    """All recordings together."""

    page: Path
    recordings: int
    parts: tuple[Weight, ...]
    octaves: tuple[Interval, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What was found, as JSON."""
        return {
            "recordings": self.recordings,
            "parts": [it.model_dump(mode="json") for it in self.parts],
            "octaves": {
                str(hz): it.model_dump(mode="json")
                for hz, it in zip(OCTAVES, self.octaves, strict=True)
            },
        }


class Already(NamedTuple):
    """A recording that an earlier run explained."""

    input: Place
    output: Path


def layout(inputs: Sequence[Path], out: Path) -> list[Job | Failed]:
    """Lay out which recording becomes which page; folders keep their tree.

    `out` is a file when there is one input file and `out` is named like a picture or a page.

    Raises
    ------
    CallError
        Two recordings would become one page, or `out` is a file where a folder is needed.
    """
    single = len(inputs) == 1 and not inputs[0].is_dir()
    named = out.suffix.lower() in PAGES and not out.is_dir()
    if single and named:
        return [Job(inputs[0], out)]
    if single and not out.is_dir() and (out.suffix or out.exists()):
        raise CallError(
            f"{shown(out)} is neither a picture nor a page: end it in .png or .html, or name a "
            "folder"
        )
    if named or out.is_file():
        raise CallError(f"{shown(out)} names a file; several pages need a folder: name one")
    laid: dict[Path, Job | Failed] = {}
    for item in inputs:
        for job in _laid(item, out):
            place = job.output if isinstance(job, Job) else Path(job.input)
            other = laid.get(place)
            if other and not same(Path(other.input), Path(job.input)):
                raise CallError(
                    f"{shown(other.input)} and {shown(job.input)} would both become "
                    f"{shown(place)}: explain them into two folders"
                )
            laid[place] = job
    return list(laid.values())


def check_index(out: Path, overwrite: bool) -> None:
    """Raise OutputError if the table of several recordings may not be written."""
    check_free((out / INDEX, out / TABLE), overwrite)


def check(asked: Asked) -> None:
    """Raise before the work what would be raised after it: a wrong call, a missing extra."""
    check_side(asked.side)
    saliency.check(asked.method)
    picture.check("explain")
    if asked.parts:
        segmentation.check()


def _laid(item: Path, out: Path) -> Iterator[Job | Failed]:
    if not item.is_dir():
        yield Job(item, out / f"{item.name}.html")
        return
    try:
        inside = [path for path in audio_files(item) if not _is_output(path)]
        if not inside:
            raise FolderError(
                f"{shown(item)} holds nothing but earlier outputs: name another input"
            )
    except FolderError as error:
        yield Failed(item, error)
        return
    for path in inside:
        place = path.relative_to(item)
        yield Job(path, out / place.with_name(f"{place.name}.html"))


def _is_output(path: Path) -> bool:
    found = re.fullmatch(r"(.+)\.(used|rest)\.\w+", path.name)
    return found is not None and path.with_name(f"{found[1]}.html").exists()


def explain_file(
    job: Job, model: Model, asked: Asked, *, overwrite: bool = False, seed: int = 0
) -> Explained:
    """Explain one recording; raises TonewoodError, and then nothing of it is left."""
    began = time.perf_counter()
    sounds = []
    if asked.listen:
        sounds = [job.output.with_suffix(f".{name}{job.input.suffix}") for name in ("used", "rest")]
    check_outputs(job, [job.output, *sounds], overwrite)
    recording = read(job.input)
    found = explain(
        recording.samples,
        recording.rate,
        model,
        side=asked.side,
        method=asked.method,
        parts=asked.parts,
        seed=seed,
    )
    spectrum = model.settings.spectrum
    sums = found.tally(spectrum.hop / spectrum.rate)
    parts = weights(NAMES, [sums], np.random.default_rng(seed), "steady") if sums else []
    title = shown(job.input.name)
    drawn = explain_page.picture(
        found, mono_at(recording.samples, recording.rate, model), model, title
    )
    warnings = []
    with all_or_none([job.output, *sounds]) as made:
        if sounds and not _write_sounds(sounds, recording, found, model, overwrite, made):
            warnings.append(f"nothing in it speaks for the {asked.side}: there are no sounds of it")
            sounds = []
        if job.output.suffix.lower() == ".png":
            write_bytes(job.output, drawn, overwrite=overwrite)
        else:
            text = explain_page.single(
                found, parts, drawn, list(_players(sounds)), title, shown(model.name)
            )
            write_text(job.output, text, overwrite=overwrite)
    if not found.faithful.holds:
        warnings.append(found.faithful.line)
    return Explained(
        input=job.input,
        output=job.output,
        sounds=tuple(sounds),
        explanation=found,
        parts=tuple(parts),
        seconds=round(time.perf_counter() - began, 2),
        warnings=tuple(warnings),
    )


def _write_sounds(
    paths: Sequence[Path],
    recording: Recording,
    found: Explanation,
    model: Model,
    overwrite: bool,
    made: list[Path],
) -> bool:
    heard = listen(recording.samples, recording.rate, found, model)
    if heard is None:
        return False
    for path, sound in zip(paths, heard, strict=True):
        form = AudioFormat.for_path(path, recording.format)
        write(path, sound.samples, recording.rate, form, overwrite=overwrite)
        made.append(path)
    return True


def _players(sounds: Sequence[Path]) -> Iterator[Sound | str]:
    """Players of the sounds, or their names where a browser would not play them."""
    captions = ("What speaks for it.", "What that leaves; before each was made as loud as the "
                "recording, the two summed to it.")  # fmt: skip
    for path, caption in zip(sounds, captions, strict=False):
        kind = _PLAYED.get(path.suffix.lower())
        if kind and path.stat().st_size <= _EMBEDDED:
            yield Sound(kind, path.read_bytes(), caption)
        else:
            yield f"{shown(path.name)}: {caption}"


def tabulate(
    done: Sequence[Figures], out: Path, model: Model, *, overwrite: bool = False, seed: int = 0
) -> Tabulated:
    """Write the table of several recordings, and its page."""
    rng = np.random.default_rng(seed)
    sums = [it.tally for it in done]
    parts = (
        weights(NAMES, [it for it in sums if it is not None], rng, "steady") if all(sums) else []
    )
    octaves = means(np.stack([np.array(it.octaves) for it in done]), rng)
    made = Tabulated(out / INDEX, len(done), tuple(parts), tuple(octaves))
    write_text(out / TABLE, json.dumps(made.summary, indent=1) + "\n", overwrite=overwrite)
    text = explain_page.folder(parts, octaves, done, shown(model.name))
    write_text(made.page, text, overwrite=overwrite)
    return made
