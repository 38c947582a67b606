"""Stimuli of a listening test: pieces under several conditions, excerpts, fades, equal loudness, anchors.

All stimuli of a test have the same rate, channels, length and file size, so that only the sound differs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tonewood.audio_io.reader import read_recording
from tonewood.audio_io.recording import file_sha256, find_audio_files, resample
from tonewood.dsp.equalizer import filter_without_delay, kaiser_filter, kaiser_filter_order
from tonewood.dsp.features import band_levels, frame_levels, is_audible
from tonewood.dsp.loudness import integrated_loudness, true_peak_db
from tonewood.enhancement.output_files import FileFailure, sidecar_path
from tonewood.enhancement.recipe import load_recipe
from tonewood.errors import AudioError, CallError, FolderError, printable
from tonewood.settings import BandSettings, SpectrumSettings
from tonewood.utils.arrays import FloatArray, Levels, Samples, to_mono
from tonewood.utils.files import name_key, real_path

UNTOUCHED_CONDITION, ENHANCED_CONDITION = "untouched", "enhanced"
MAX_STIMULUS_CHANNELS = 2
TARGET_LUFS, MAX_PEAK_DB = -23.0, -1.0  # after EBU R 128; peaks between samples count
STIMULUS_FADE_SECONDS = 0.05
MIN_EXCERPT_SECONDS, MAX_EXCERPT_SECONDS = 5.0, 12.0  # the maximum of ITU-R BS.1534-3 and webMUSHRA
_MAX_LENGTH_DIFFERENCE_S = 0.1  # between conditions of a piece; encoders add some padding
_EFFECT_SPECTRUM, _EFFECT_BANDS = SpectrumSettings(), BandSettings()
EFFECT_HOP_SECONDS = _EFFECT_SPECTRUM.hop / _EFFECT_SPECTRUM.rate
_ANCHOR_STOPBAND_DB = 60.0
_TRANSITION_RATIO = 1 / 7  # of the corner: 3.5 kHz passes, 4 kHz does not
_MAX_GAIN_ROUNDS = 8

# Tones of Woods et al. (2017): 200 Hz, 1 s with ramps of 0.1 s, pauses of 0.5 s, six trials.
HEADPHONE_TRIALS = 6
_TONE_HZ, _TONE_SECONDS, _GAP_SECONDS, _RAMP_SECONDS = 200.0, 1.0, 0.5, 0.1
_HEARING_HZ = (500.0, 2_000.0, 6_000.0)
_HEARING_DB = -50.0
_MAX_PULSES, _PULSE_PERIOD_SECONDS = 6, 0.6


@dataclass(frozen=True, eq=False)
class ComparedPiece:
    """A recording under each condition."""

    name: str
    paths: dict[str, Path]  # by condition
    recipes: tuple[Path, ...] = ()  # recipes of the enhanced conditions; empty for plain condition folders

    def read_conditions(self, rate: int) -> dict[str, Samples]:
        """Return samples (channels, samples) by condition, cut to the shortest.

        AudioError if a file cannot be read, or the lengths differ: the conditions are not the same recording,
        and switching between them would jump.
        """
        waves = {}
        for name, path in self.paths.items():
            recording = read_recording(path, max_channels=MAX_STIMULUS_CHANNELS)
            waves[name] = resample(recording.samples, recording.rate, rate)
        lengths = [wave.shape[1] for wave in waves.values()]
        if max(lengths) - min(lengths) > _MAX_LENGTH_DIFFERENCE_S * rate:
            first, *_, last = sorted(self.paths.values(), key=str)
            raise AudioError(
                f"{printable(first)} and {printable(last)} differ in length by "
                f"{(max(lengths) - min(lengths)) / rate:.2f} s; the limit is {_MAX_LENGTH_DIFFERENCE_S} s: "
                "use versions of the same recording"
            )
        return {name: wave[:, : min(lengths)] for name, wave in waves.items()}

    def effect_db(self, waves: dict[str, Samples], rate: int) -> FloatArray:
        """Return how much the conditions differ [frame] in dB; 0 where the recording is not audible.

        With recipes this is the root mean square gain of their masks, otherwise the root mean square
        difference of band levels between conditions.
        """
        rows_db = [_measure_band_levels(wave, rate) for wave in waves.values()]
        frames = min(rows.shape[1] for rows in rows_db)
        levels_db = np.stack([rows[:, :frames] for rows in rows_db])
        audible = is_audible(frame_levels(levels_db[0]))
        if self.recipes:
            times_s = np.arange(frames, dtype=np.float64) * EFFECT_HOP_SECONDS
            effects = [_mask_effect_db(path, times_s) for path in self.recipes]
            return np.asarray(np.mean(effects, axis=0) * audible, dtype=np.float64)
        spread = np.sqrt(levels_db.var(axis=0).mean(axis=0))
        return np.asarray(spread * audible, dtype=np.float64)


def _measure_band_levels(wave: Samples, rate: int) -> Levels:
    return band_levels(to_mono(wave), rate, _EFFECT_BANDS, _EFFECT_SPECTRUM)


def _mask_effect_db(path: Path, times_s: FloatArray) -> FloatArray:
    """Return the root mean square gain [frame] over the mask's rows."""
    mask = load_recipe(path).mask.to_mask().load()
    gain_db = mask.gain_at(mask.hz, times_s)
    return np.asarray(np.sqrt(np.square(gain_db, dtype=np.float64).mean(axis=0)))


def pieces_from_outputs(
    folders: Sequence[Path], inputs: Sequence[Path] = ()
) -> Iterator[ComparedPiece | FileFailure]:
    """Yield the pieces of folders that `tonewood enhance` wrote; the inputs are the first condition.

    Parameters
    ----------
    inputs : sequence of Path
        Folders of the inputs; the parent of the first output folder if empty.

    Raises
    ------
    FolderError
        A folder has no output with a recipe.
    """
    names = [ENHANCED_CONDITION] if len(folders) == 1 else _condition_names(folders)

    # Outputs that were made from the same input, by its SHA-256.
    outputs_by_input: dict[str, dict[str, Path]] = {}
    input_names: dict[str, tuple[str, str]] = {}
    for name, folder in zip(names, folders, strict=True):
        outputs = [path for path in find_audio_files(folder) if sidecar_path(path).exists()]
        if not outputs:
            raise FolderError(
                f"{printable(folder)} has no output with a recipe: choose a folder that "
                "tonewood enhance wrote"
            )
        for path in outputs:
            record = load_recipe(sidecar_path(path)).input
            outputs_by_input.setdefault(record.sha256, {})[name] = path
            input_names.setdefault(record.sha256, (name_key(record.name), _piece_name(path, folder)))

    # Hashing all inputs would be slow, so only files with a matching name are hashed.
    input_folders = list(inputs) or [real_path(folders[0]).parent]
    candidates = _files_by_name(input_folders, {name for name, _ in input_names.values()})
    for digest, outputs_of_piece in outputs_by_input.items():
        input_name, piece_name = input_names[digest]
        first = next(iter(outputs_of_piece.values()))
        source = next((p for p in candidates.get(input_name, []) if file_sha256(p) == digest), None)
        if source is None:
            searched = ", ".join(printable(folder) for folder in input_folders)
            reason = f"was made from {input_name}, which was not found below {searched}"
            yield FileFailure(
                first, FolderError(f"{printable(first)} {reason}: name its folder with --inputs")
            )
        elif len(outputs_of_piece) < len(names):
            missing = next(name for name in names if name not in outputs_of_piece)
            yield FileFailure(
                first, FolderError(f"{printable(source)} has no output in {missing}: enhance it")
            )
        else:
            paths = {UNTOUCHED_CONDITION: source, **{name: outputs_of_piece[name] for name in names}}
            recipes = tuple(sidecar_path(path) for path in outputs_of_piece.values())
            yield ComparedPiece(piece_name, paths, recipes)


def pieces_from_conditions(folders: Sequence[Path]) -> Iterator[ComparedPiece | FileFailure]:
    """Yield the pieces of condition folders: files of equal names, whatever their suffixes.

    CallError or FolderError if there are fewer than two folders, or no name is in all of them.
    """
    if len(folders) < 2:
        raise CallError("--conditions needs at least two folders: name another")
    files_by_condition: dict[str, dict[str, Path]] = {}
    for name, folder in zip(_condition_names(folders), folders, strict=True):
        files = files_by_condition[name] = dict[str, Path]()
        for path in find_audio_files(folder):
            piece_name = _piece_name(path, folder)
            if piece_name in files:
                raise FolderError(
                    f"{printable(path)} and {printable(files[piece_name])} have the same name except for "
                    "their suffixes: rename one of them"
                )
            files[piece_name] = path
    piece_names = sorted(set().union(*files_by_condition.values()))
    if not any(all(name in files for files in files_by_condition.values()) for name in piece_names):
        raise FolderError(
            f"no file name is in all of {', '.join(map(printable, folders))}: "
            "give the versions of a piece the same name"
        )
    for piece_name in piece_names:
        paths = {name: files[piece_name] for name, files in files_by_condition.items() if piece_name in files}
        if len(paths) == len(folders):
            yield ComparedPiece(piece_name, paths)
            continue
        missing = next(name for name in files_by_condition if name not in paths)
        path = next(iter(paths.values()))
        yield FileFailure(path, FolderError(f"{printable(path)} has no counterpart in {missing}: add it"))


def add_reference(
    candidates: Sequence[ComparedPiece | FileFailure], folder: Path
) -> list[ComparedPiece | FileFailure]:
    """Return the pieces with a reference from a folder, matched by name."""
    files = {_piece_name(path, folder): path for path in find_audio_files(folder)}
    condition = real_path(folder).name
    pieces: list[ComparedPiece | FileFailure] = []
    for piece in candidates:
        if isinstance(piece, FileFailure) or condition in piece.paths:
            pieces.append(piece)  # the reference folder may also be given as a condition
        elif piece.name in files:
            paths = {condition: files[piece.name], **piece.paths}
            pieces.append(ComparedPiece(piece.name, paths, piece.recipes))
        else:
            error = FolderError(f"{printable(folder)} has no reference named {printable(piece.name)}: add it")
            pieces.append(FileFailure(folder / piece.name, error))
    return pieces


def _piece_name(path: Path, folder: Path) -> str:
    return name_key(path.relative_to(folder).with_suffix("").as_posix())


def _condition_names(folders: Sequence[Path]) -> list[str]:
    names = [real_path(folder).name for folder in folders]
    for name in names:
        if names.count(name) > 1 or name == UNTOUCHED_CONDITION:
            raise CallError(
                f"two conditions would have the name {printable(name)}: use folders with different names"
            )
    return names


def _files_by_name(folders: Sequence[Path], names: set[str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for folder in folders:
        for path in find_audio_files(folder):
            name = name_key(printable(path.name))
            if name in names:
                files.setdefault(name, []).append(path)
    return files


def find_strongest_excerpt(effect: FloatArray, frames: int, used_starts: tuple[int, ...] = ()) -> int | None:
    """Return the first frame of the excerpt with the largest effect that overlaps no used one."""
    sums = np.convolve(effect, np.ones(frames), mode="valid")  # of every possible excerpt
    # An effect is never negative, so -1 marks the starts of excerpts that would overlap a used one.
    for start in used_starts:
        sums[max(0, start - frames + 1) : start + frames] = -1.0
    best = int(np.argmax(sums))
    return best if sums[best] >= 0 else None


def draw_random_excerpt(effect: FloatArray, frames: int, rng: np.random.Generator) -> int | None:
    """Return the first frame of a random excerpt that is audible for at least half of its length.

    `effect` is positive where the recording is audible.
    """
    audible = np.convolve(effect > 0, np.ones(frames), mode="valid")
    starts = np.flatnonzero(audible >= frames / 2)
    return int(rng.choice(starts)) if len(starts) else None


def apply_fades(wave: Samples, rate: int) -> Samples:
    """Return (channels, samples) with raised-cosine fades at both ends."""
    length = round(STIMULUS_FADE_SECONDS * rate)
    rise = np.sin(np.linspace(0, np.pi / 2, length)) ** 2
    shaped = wave.astype(np.float64)
    shaped[:, :length] *= rise
    shaped[:, -length:] *= rise[::-1]
    return shaped.astype(np.float32)


def low_pass_anchor(wave: Samples, rate: int, corner_hz: float) -> Samples:
    """Return an anchor of ITU-R BS.1534-3, which asks for 25 dB at 4 kHz and 50 dB at 4.5 kHz.

    The filter is flat to 0.1 dB below the corner and 60 dB down a seventh above it. Its delay is
    removed, so that stimuli stay synchronous.
    """
    transition_hz = _TRANSITION_RATIO * corner_hz
    taps = math.ceil(kaiser_filter_order(_ANCHOR_STOPBAND_DB, transition_hz) * rate + 1) | 1
    # The filter's edge is the middle of the transition band, which begins at the corner.
    kernel = kaiser_filter(taps, 0.0, corner_hz + transition_hz / 2, _ANCHOR_STOPBAND_DB, rate)
    return filter_without_delay(wave, kernel).astype(np.float32)


def equalize_loudness(waves: Mapping[str, Samples], rate: int) -> dict[str, Samples]:
    """Return all conditions at −23 LUFS, or at the highest common loudness that their peaks permit.

    ValueError if a condition is silent.
    """
    loudness = {name: integrated_loudness(wave, rate) for name, wave in waves.items()}
    if not np.isfinite(list(loudness.values())).all():
        raise ValueError("silence")
    # Peaks at the target; all conditions come down by the largest excess, and stay equally loud.
    peaks = [TARGET_LUFS - loud + true_peak_db(waves[name], rate) for name, loud in loudness.items()]
    target = TARGET_LUFS - max(0.0, max(peaks) - MAX_PEAK_DB)
    return {name: _scale_to_loudness(wave, rate, target) for name, wave in waves.items()}


def _scale_to_loudness(wave: Samples, rate: int, target: float) -> Samples:
    """Scale by the missing gain until the loudness fits; one round is not enough, as it is gated."""
    for _ in range(_MAX_GAIN_ROUNDS):
        gain_db = target - integrated_loudness(wave, rate)
        if abs(gain_db) < 1e-3:
            break
        wave = (wave * 10 ** (gain_db / 20)).astype(np.float32)
    return wave


def quantize_with_dither(wave: Samples, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return 16-bit samples (samples, channels) with triangular dither."""
    shape = wave.T.shape
    # Triangular over ±1 step: neither mean nor power of the rounding error follows the sound.
    noise = rng.random(shape) - rng.random(shape)
    steps = np.round(wave.T.astype(np.float64) * 32767 + noise)
    return np.clip(steps, -32768, 32767).astype(np.int16)


def headphone_check_sound(rate: int, order: NDArray[np.int64]) -> Samples:
    """Return three tones, one of them 6 dB softer and one in antiphase (Woods et al. 2017).

    With headphones the softer tone is the softest; with loudspeakers the antiphase tone cancels. `order` [3]
    has the places of the plain, the softer and the antiphase tone.
    """
    tone = _ramped_tone(_TONE_HZ, _TONE_SECONDS, rate, -26.0)
    soft = 10 ** (-6 / 20)
    kinds = (np.stack([tone, tone]), np.stack([tone, tone]) * soft, np.stack([tone, -tone]))
    gap = np.zeros((2, round(_GAP_SECONDS * rate)))
    # `order` has the place of each kind; its inverse, by argsort, has the kind at each place.
    parts = [part for k in np.argsort(order) for part in (kinds[k], gap)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def hearing_check_sound(rate: int, hz: float, count: int) -> Samples:
    """Return `count` soft pulses of a tone; the duration does not depend on the count."""
    pulse = _ramped_tone(hz, 0.25, rate, _HEARING_DB)
    # Room for the largest count: neither duration nor file size may tell the answer.
    wave = np.zeros(round(_MAX_PULSES * _PULSE_PERIOD_SECONDS * rate))
    for k in range(count):
        start = round((0.2 + _PULSE_PERIOD_SECONDS * k) * rate)
        wave[start : start + len(pulse)] += pulse
    return np.stack([wave, wave]).astype(np.float32)


def make_check_sounds(rate: int, rng: np.random.Generator) -> list[tuple[str, int, Samples]]:
    """Return kind, correct answer and stereo sound of each check."""
    sounds = []
    for hz in _HEARING_HZ:
        count = int(rng.integers(2, 6))
        sounds.append(("hearing", count, hearing_check_sound(rate, hz, count)))
    for _ in range(HEADPHONE_TRIALS):
        order = rng.permutation(3)
        # The softer tone is the correct answer, by its place counted from 1.
        sounds.append(("headphones", int(order[1]) + 1, headphone_check_sound(rate, order)))
    return sounds


def _ramped_tone(hz: float, seconds: float, rate: int, level_db: float) -> FloatArray:
    times_s = np.arange(round(seconds * rate)) / rate
    ramp = np.minimum(1.0, np.minimum(times_s, seconds - times_s) / _RAMP_SECONDS)
    wave: FloatArray = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * times_s) * ramp
    return wave
