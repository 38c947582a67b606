"""Readers of foreign files, each with valid inputs to damage."""

import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from safetensors import SafetensorError
from safetensors.numpy import save

from campaigns.harness.audio import instrument
from campaigns.harness.fuzz.mutations import BYTES, TEXT, Mutation, flip_bits, mutate
from tonewood.audio_io.reader import AudioReader, probe_audio, read_recording
from tonewood.batch.enhance_file import enhance_file
from tonewood.data import feature_cache, manifest
from tonewood.enhancement import output_files
from tonewood.enhancement import recipe as recipes
from tonewood.model import model as modelfile
from tonewood.model.model import Model
from tonewood.model.model_file import model_checksum, read_model_file, read_tensors, split_header
from tonewood.settings import EnhanceSettings, TrainingSettings
from tonewood.training import preferences
from tonewood.training.networks import Checkpoint

FORMATS = {
    "wav": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "wavf": ("WAV", "FLOAT"),
    "wavex": ("WAVEX", "PCM_16"), "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"), "aiff": ("AIFF", "PCM_16"), "caf": ("CAF", "PCM_16"),
    "caf-alac": ("CAF", "ALAC_16"), "au": ("AU", "PCM_16"), "wav-adpcm": ("WAV", "MS_ADPCM"),
}  # fmt: skip
"""Kinds of audio file, as libsndfile names them."""

LIMIT_S, LIMIT_BYTES = 10, 2**30
"""Limits for one input."""


@dataclass(frozen=True)
class Reader:
    """A function that reads a file, with valid contents and ways to damage them.

    Parameters
    ----------
    suffix : str
        Suffix of the file.
    seeds : tuple of bytes
        Valid contents.
    read : callable
        Takes the path; may raise TonewoodError only.
    mutations : tuple of Mutation
    fix_checksum : callable, optional
        Corrects the checksum of damaged content, so that the reader looks at the damage behind it.
    """

    suffix: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    mutations: tuple[Mutation, ...] = BYTES
    fix_checksum: Callable[[bytes], bytes] | None = None

    def inputs(self, count: int, seed: int) -> Iterator[bytes]:
        """Yield damaged contents, determined by the seed."""
        for number in range(count):
            random = Random(f"{self.suffix} {seed} {number}")
            content = mutate(random.choice(self.seeds), self.mutations, random)
            if self.fix_checksum is not None and random.random() < 0.7:
                content = self.fix_checksum(content)
            yield content


def audio_readers() -> dict[str, Reader]:
    """Return a reader for each kind of audio file."""
    time = np.arange(14_400) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * np.outer(time, [220.0, 331.0]))
    readers = {}
    for name, (container_format, subtype) in FORMATS.items():
        seeds = []
        for channels in (1, 2):
            sink = io.BytesIO()
            rate = 48_000 if name == "opus" else 16_000
            soundfile.write(
                sink,
                wave[: 14_400 if name == "opus" else 4_800, :channels],
                rate,
                format=container_format,
                subtype=subtype,
            )
            seeds.append(sink.getvalue())
        suffix = "." + name.split("-")[0].rstrip("0123456789")
        readers[f"audio {name}"] = Reader(
            {".wavf": ".wav", ".wavex": ".wav", ".rf": ".rf64", ".w": ".w64"}.get(suffix, suffix),
            tuple(seeds),
            _read_audio,
        )
    return readers


def _read_audio(path: Path) -> None:
    probe_audio(path)
    recording = read_recording(path)
    assert recording.samples.size
    stream = AudioReader(path)
    for _ in stream.blocks():
        pass


def text_readers(recipe: bytes) -> dict[str, Reader]:
    """Return readers of recipes, lists and tables."""
    head = b"path,label,session,start,end\n"
    rows = b'a.wav,reference,m,0,10.5\n"b,c.wav",source,,,\nd.wav,reference,"n ""x""",1e1,\n'
    lines = b"\n".join(
        json.dumps({"path": f"{k}.wav", "label": side, "session": None, "start": k}).encode()
        for k, side in enumerate(("reference", "source", "source"))
    )
    answers = b"preferred,other,listener\na.wav,b.wav,1\nb.wav,c.wav,2\na.wav,c.wav,1\n"
    ratings = b"file,rating,low,high\na.wav,4.5,1,5\nb.wav,2,1,5\n"
    training = TrainingSettings()
    return {
        "recipe": Reader(".recipe.json", (recipe,), _read_recipe, TEXT),
        "manifest csv": Reader(".csv", (head + rows,), manifest.read_manifest, TEXT),
        "manifest jsonl": Reader(".jsonl", (lines,), manifest.read_manifest, TEXT),
        "preferences": Reader(
            ".csv",
            (answers,),
            lambda path: preferences.read_answer_tables(path, None, training),
            TEXT,
        ),
        "ratings": Reader(
            ".csv",
            (ratings,),
            lambda path: preferences.read_answer_tables(None, path, training),
            TEXT,
        ),
    }


def make_recipe(model: Model, folder: Path) -> bytes:
    """Enhance a recording and return its recipe."""
    source, output = folder / "seed.wav", folder / "out.wav"
    soundfile.write(source, instrument(3.0, formant_hz=2_500.0).T, 16_000)
    settings = EnhanceSettings().replace(search=dict(steps=0), force=True)
    for _ in enhance_file(source, output, model, settings):
        pass
    return output_files.sidecar_path(output).read_bytes()


def file_readers(model: Model, recipe: bytes, folder: Path) -> dict[str, Reader]:
    """Return all readers of files by name."""
    return {**audio_readers(), **text_readers(recipe), **tensor_readers(model, folder)}


def _read_recipe(path: Path) -> None:
    recipes.load_recipe(path).mask.to_mask().load()


def tensor_readers(model: Model, folder: Path) -> dict[str, Reader]:
    """Return readers of model files, checkpoints and cache entries, which contain tensors."""
    path = folder / "seed.tonewood"
    model.save(path)
    content = path.read_bytes()
    weights = model.scorer.weights
    tensors = {"scorer/told": weights["row_mean"], "judge/told": weights["loud_row"]}
    saved = save(tensors, {"told": "[]"})
    mutations = (_damage_header, *BYTES)
    return {
        "model": Reader(".tonewood", (content,), modelfile.load_model, mutations, _fix_checksum),
        "card": Reader(".tonewood", (content,), _read_card, mutations, _fix_checksum),
        "checkpoint": Reader(".checkpoint", (saved,), _open_checkpoint, mutations),
        "cache": Reader(".take", (saved,), feature_cache._read_cache_entry, mutations),
    }


def _read_card(path: Path) -> None:
    assert read_model_file(path).digest


def _open_checkpoint(path: Path) -> None:
    Checkpoint(path, resumed=True).open(["x"])


def _damage_header(content: bytes, random: Random) -> bytes:
    """Damage the text of a safetensors header and correct its length."""
    if len(content) < 8:
        return flip_bits(content, random)
    (length,) = struct.unpack("<Q", content[:8])
    if length > len(content) - 8:
        return flip_bits(content, random)
    head = random.choice(TEXT)(content[8 : 8 + length], random)
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


def _fix_checksum(content: bytes) -> bytes:
    try:
        header, data = split_header(content)
        metadata = header["__metadata__"]
        tensors = read_tensors(content)
        metadata["sha256"] = model_checksum(metadata["settings"], metadata["card"], tensors)
        head = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError):
        return content
    return struct.pack("<Q", len(head)) + head + bytes(data)
