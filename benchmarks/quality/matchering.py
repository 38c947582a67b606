"""Row: Matchering, run as a separate program from a virtual environment of its own (GPL-3)."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from quality.bench import Bench, Fitted, Output, Row, SkippedError
from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import find_audio_files, resample

_SECONDS, _EXCERPTS = 30.0, 10
_RATE = 44_100  # Matchering's own
_PROGRAM = """
import json, sys, time
import matchering as mg
for target, reference, result in json.load(sys.stdin):
    began = time.process_time()
    mg.process(target=target, reference=reference, results=[mg.pcm24(result)])
    print(json.dumps(time.process_time() - began), flush=True)
"""


def matchering(bench: Bench) -> Fitted:
    python = os.environ.get("TONEWOOD_MATCHERING")
    if not python:
        raise SkippedError("TONEWOOD_MATCHERING does not name a python that has Matchering")
    with tempfile.TemporaryDirectory(prefix="matchering-") as scratch:
        reference = Path(scratch) / "reference.wav"
        soundfile.write(reference, excerpt(bench), _RATE)
        results = [Path(scratch) / f"{index}.wav" for index in range(len(bench.corpus.test))]
        jobs = [
            (str(piece.path), str(reference), str(result))
            for piece, result in zip(bench.corpus.test, results, strict=True)
        ]
        # One process for all pieces: its imports take longer than its work.
        process = subprocess.run(
            [python, "-c", _PROGRAM], input=json.dumps(jobs), capture_output=True, text=True
        )
        if process.returncode:
            raise SkippedError(f"{python} failed: {process.stderr.strip().splitlines()[-1]}")
        seconds = [json.loads(line) for line in process.stdout.splitlines()]
        outputs = {}
        for piece, result, piece_seconds in zip(bench.corpus.test, results, seconds, strict=True):
            recording = read_recording(result)
            outputs[piece.name] = Output(recording.samples, recording.rate, None, piece_seconds)
    return Fitted(lambda piece: outputs[piece.name], note=f"one reference: {_SECONDS:.0f} s of the folder")


def excerpt(bench: Bench):
    """Draw thirty seconds [sample] of the reference folder, from ten recordings."""
    files = find_audio_files(bench.corpus.reference)
    rng = np.random.default_rng(bench.seed)
    parts = []
    for index in range(_EXCERPTS):
        if index % len(files) == 0:
            order = rng.permutation(len(files))
        recording = read_recording(files[order[index % len(files)]])
        mono = resample(recording.samples.mean(axis=0), recording.rate, _RATE)
        length = min(len(mono), round(_SECONDS / _EXCERPTS * _RATE))
        start = rng.integers(len(mono) - length + 1)
        parts.append(mono[start : start + length])
    return np.concatenate(parts)


MATCHERING = Row("matchering", "Matchering 2.0.6", matchering)
