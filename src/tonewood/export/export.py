"""A recipe's or a model's correction → impulse responses, parametric bands, automation.

What a recipe or a model does on the whole, as one mask: for `diff` and `export`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat
from tonewood.audio_io.reader import MAX_RATE, MIN_RATE, write_recording
from tonewood.dsp.equalizer import (
    MAX_BANDS,
    EqFit,
    Phase,
    design_impulse_response,
    fit_grid_hz,
    fit_parametric_eq,
    graphic_eq_gains,
    magnitude_error_db,
)
from tonewood.dsp.filterbank import center_frequencies
from tonewood.enhancement import recipe as recipes
from tonewood.enhancement.output_files import sidecar_path
from tonewood.enhancement.recipe import Recipe
from tonewood.errors import CallError, OutputError, printable
from tonewood.export import formats
from tonewood.export.formats import GainTable
from tonewood.mask.components import static_component
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask
from tonewood.model import model as modelfile
from tonewood.model.model import Model
from tonewood.settings import RenderSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.atomic_write import write_text


@dataclass(frozen=True)
class Correction:
    """A correction, as it is in force.

    Parameters
    ----------
    name : str
        As it was asked for.
    mask : Mask
        A recipe's: its aspect and amount applied. A model's: its static mask, one frame.
    gain_db : float
        Of the whole output, which matched its loudness; 0 of a model.
    recipe : Recipe or None
    """

    name: str
    mask: Mask
    gain_db: float
    recipe: Recipe | None = None

    @property
    def seconds(self) -> float | None:
        """Length of the recording; None of a model."""
        return self.recipe.input.samples / self.recipe.input.rate if self.recipe else None

    def average_db(self, hz: FloatArray) -> FloatArray:
        """Mean over time [frequency], dB, the output's gain left out."""
        one = static_component(self.mask)
        return one.gain_at(hz, np.zeros(1))[:, 0].astype(np.float64)


def load_correction(name: str) -> Correction:
    """Read a recipe (or that beside an output), a model file, or a bundled model by its name.

    Raises
    ------
    RecipeError, ModelError
        It is neither, or damaged.
    """
    path = Path(name)
    if sidecar_path(path).is_file():
        path = sidecar_path(path)
    if path.suffix.lower() == ".json":
        return correction_of_recipe(printable(name), recipes.load_recipe(path))
    return correction_of_model(printable(name), modelfile.load_model(name))


def correction_of_recipe(name: str, recipe: Recipe) -> Correction:
    """What a recipe did to its recording."""
    mask = effective_mask(recipe.mask.to_mask(), recipe.settings.render, recipe.spectrum)
    return Correction(name, mask.load(), recipe.gain_db, recipe)


def correction_of_model(name: str, model: Model) -> Correction:
    """What a model does to all recordings alike: its static mask."""
    spectrum = model.settings.spectrum
    mask = Mask(
        model.priors.static_db.numpy()[:, None].astype(np.float32),
        center_frequencies(model.settings.scorer.bands, spectrum),
        spectrum.hop / spectrum.rate,
        spectrum.rate / 2,
    )
    return Correction(name, mask.clip(RenderSettings().max_gain_db), 0.0)


AutomationFormat = Literal["csv", "jsfx"]

MAX_RESPONSE_ERROR_DB = 0.1
"""What an impulse response may stray from the curve."""

# Third octaves by their nominal names (IEC 61260), from 50 Hz to 16 kHz.
_THIRD_OCTAVES_HZ = np.array([
    50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1_000, 1_250, 1_600, 2_000,
    2_500, 3_150, 4_000, 5_000, 6_300, 8_000, 10_000, 12_500, 16_000,
], dtype=np.float64)  # fmt: skip
_THIRD_OCTAVE_Q = float(1 / (2 ** (1 / 6) - 2 ** (-1 / 6)))
_MIN_RESPONSE_LENGTH, _MAX_RESPONSE_LENGTH = 64, 1 << 20
_POINTS_PER_BAND = 5  # of a band, over which its gain is averaged


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written.

    Parameters
    ----------
    data : dict
        What it holds and how close it comes, for programs.
    lines : tuple of str
        The same for people.
    warning : str or None
    """

    output: Path
    data: dict[str, Any]
    lines: tuple[str, ...]
    warning: str | None = None


@dataclass(frozen=True)
class AverageCurve:
    """The average correction as a curve, the gain of the whole included.

    Parameters
    ----------
    headroom : bool
        Lowered until no frequency is raised above 0 dB.
    """

    correction: Correction
    headroom: bool = False

    @property
    def gain_db(self) -> float:
        """Of the whole, which the curve includes."""
        if not self.headroom:
            return self.correction.gain_db
        hz = np.geomspace(20, 20_000, 1_000)
        return -max(0.0, float(self.correction.average_db(hz).max()))

    def __call__(self, hz: FloatArray) -> FloatArray:
        """Gain [frequency] in dB."""
        return self.correction.average_db(hz) + self.gain_db


def export_impulse_response(
    curve: AverageCurve,
    phase: Phase,
    out: Path,
    *,
    rate: int = 48_000,
    length: int | None = None,
    overwrite: bool = False,
) -> ExportedFile:
    """Write the average correction as an impulse response, mono, 32-bit float.

    Parameters
    ----------
    length : int, optional
        Samples; by default a power of two of a sixth of a second or more.
    """
    if phase not in ("linear", "minimum"):
        raise CallError(f"the phase is {phase!r}; choose linear or minimum")
    _check_export_rate(rate)
    taps = 1 << (rate // 6 - 1).bit_length() if length is None else length
    if not _MIN_RESPONSE_LENGTH <= taps <= _MAX_RESPONSE_LENGTH:
        raise CallError(
            f"the length is {taps} samples; give one from {_MIN_RESPONSE_LENGTH} to {_MAX_RESPONSE_LENGTH}"
        )
    if out.suffix.lower() not in WRITABLE_SUFFIXES:
        raise CallError(f"{printable(out)} is no audio file: name one such as {printable(out.stem)}.wav")
    made = design_impulse_response(curve, rate, taps, phase)
    error = magnitude_error_db(made, curve, rate, fit_grid_hz(rate))
    form = AudioFormat.for_path(out, AudioFormat("WAV", "FLOAT"))
    if form.subtype != "FLOAT" and np.abs(made).max() > 1:
        raise OutputError(
            f"{printable(out)} cannot hold samples above 1, of which this response has some: "
            "name a .wav, or pass --headroom"
        )
    write_recording(out, made[None], rate, form, overwrite=overwrite)
    delay = (taps - 1 + taps % 2) // 2 if phase == "linear" else 0
    return ExportedFile(
        out,
        {"kind": "ir", "phase": phase, "rate": rate, "length": taps, "delay": delay,
         "error_db": round(error, 4), "gain_db": round(curve.gain_db, 2)},
        (f"{phase}-phase impulse response, {taps} samples at {rate} Hz, delay {delay}",
         f"within {error:.2f} dB of the average correction from 50 Hz to 16 kHz"),
        f"strays up to {error:.2f} dB from the correction: give a longer --length"
        if error > MAX_RESPONSE_ERROR_DB else None,
    )  # fmt: skip


def export_parametric_eq(
    curve: AverageCurve,
    count: int,
    out: Path,
    *,
    file_format: str | None = None,
    rate: int = 48_000,
    overwrite: bool = False,
) -> ExportedFile:
    """Write the average correction as so many parametric bands.

    Parameters
    ----------
    file_format : {"apo", "autoeq", "rew", "camilladsp"}, optional
        By default CamillaDSP's for a name in .yml or .yaml, else Equalizer APO's.
    rate : int
        That the bands will run at: near its half, filters of another rate differ.
    """
    if not 1 <= count <= MAX_BANDS:
        raise CallError(f"{count} bands are asked for; give from 1 to {MAX_BANDS}")
    _check_export_rate(rate)
    file_format = file_format or ("camilladsp" if out.suffix.lower() in (".yml", ".yaml") else "apo")
    if file_format not in formats.EQUALIZER_FORMATS:
        raise CallError(
            f"the format is {file_format!r}; choose one of {', '.join(formats.EQUALIZER_FORMATS)}"
        )
    found = fit_parametric_eq(curve(fit_grid_hz(rate)), count, rate)
    title = (
        f"Tonewood: average correction of {curve.correction.name}, for {rate} Hz; "
        f"left {found.rms_db:.2f} dB rms, {found.largest_db:.2f} dB at most, 50 Hz to 16 kHz"
    )
    write_text(out, formats.EQUALIZER_FORMATS[file_format](found, title), overwrite=overwrite)
    return ExportedFile(
        out,
        {"kind": "peq", "format": file_format, "rate": rate, **_fit_data(found)},
        (f"{len(found.bands)} bands for {rate} Hz, gain of the whole {found.gain_db:+.1f} dB",
         f"leave {found.rms_db:.2f} dB rms of the average correction, "
         f"{found.largest_db:.2f} dB at most"),
    )  # fmt: skip


def export_automation(
    correction: Correction,
    out: Path,
    *,
    file_format: str | None = None,
    step_s: float = 0.05,
    rate: int = 48_000,
    overwrite: bool = False,
) -> ExportedFile:
    """Write a time-varying correction as automation: third octaves over time.

    Parameters
    ----------
    file_format : {"csv", "jsfx"}, optional
        By default Reaper's for a name in .jsfx, else a table.
    step_s : float
        From row to row.
    """
    seconds = correction.seconds
    if seconds is None:
        raise CallError(
            f"{correction.name} is a model, which moves nothing by itself: name a recipe, or "
            "export it with --ir or --peq"
        )
    file_format = file_format or ("jsfx" if out.suffix.lower() == ".jsfx" else "csv")
    if file_format not in ("csv", "jsfx"):
        raise CallError(f"the format is {file_format!r}; choose csv or jsfx")
    if not 0.01 <= step_s <= 10:
        raise CallError(f"the step is {step_s:g} s; give one from 0.01 to 10 s")
    table = third_octave_table(correction, np.arange(0.0, seconds, step_s))
    if file_format == "csv":
        write_text(out, formats.format_gain_csv(table), overwrite=overwrite)
        rows = len(table.seconds)
    else:
        _check_export_rate(rate)
        thin = table.thin()
        rows = len(thin.seconds)
        if rows > formats.MAX_JSFX_ROWS:
            raise CallError(
                f"the table has {rows} rows; an effect holds {formats.MAX_JSFX_ROWS}: give a longer --step"
            )
        filters = graphic_eq_gains(thin.gain_db, thin.hz, _THIRD_OCTAVE_Q, rate)
        title = f"Tonewood: {correction.name}"
        text = formats.format_jsfx(thin, filters, _THIRD_OCTAVE_Q, correction.gain_db, title)
        write_text(out, text, overwrite=overwrite)
    largest = float(np.abs(table.gain_db).max())
    return ExportedFile(
        out,
        {"kind": "automation", "format": file_format, "bands": len(table.hz), "rows": rows,
         "step_s": step_s, "seconds": round(seconds, 3), "largest_db": round(largest, 2),
         "gain_db": round(correction.gain_db, 2)},
        (f"{len(table.hz)} third octaves, {rows} rows, {largest:.1f} dB at most",
         f"gain of the whole {correction.gain_db:+.1f} dB"
         + ("" if file_format == "jsfx" else ", which the table leaves out")),
    )  # fmt: skip


def third_octave_table(correction: Correction, seconds: FloatArray) -> GainTable:
    """Gains of the third octaves at some times, each the mean over its band, dB."""
    offsets = 2 ** ((np.arange(_POINTS_PER_BAND) - _POINTS_PER_BAND // 2) / _POINTS_PER_BAND / 3)
    hz = (_THIRD_OCTAVES_HZ[:, None] * offsets).ravel()
    gain = correction.mask.gain_at(hz, seconds).astype(np.float64)
    return GainTable(
        _THIRD_OCTAVES_HZ,
        seconds,
        gain.reshape(len(_THIRD_OCTAVES_HZ), _POINTS_PER_BAND, -1).mean(axis=1),
    )


def _fit_data(peq_fit: EqFit) -> dict[str, Any]:
    return {
        "gain_db": peq_fit.gain_db,
        "bands": [band._asdict() for band in peq_fit.bands],
        "rms_db": round(peq_fit.rms_db, 3),
        "largest_db": round(peq_fit.largest_db, 3),
    }


def _check_export_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise CallError(f"the rate is {rate} Hz; give one from {MIN_RATE} to {MAX_RATE} Hz")
