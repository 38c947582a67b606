"""Export the correction of a recipe or a model: impulse response, parametric EQ, automation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tonewood.audio_io.libsndfile import WRITABLE_SUFFIXES, AudioFormat
from tonewood.audio_io.reader import MAX_RATE, MIN_RATE, write_recording
from tonewood.dsp.equalizer import (
    FREE_BANDS,
    MAX_BAND_GAIN_DB,
    MAX_BANDS,
    EqFit,
    EqLimits,
    Phase,
    design_impulse_response,
    fit_grid_hz,
    fit_parametric_eq,
    graphic_eq_gains,
    magnitude_error_db,
)
from tonewood.dsp.features import center_frequencies
from tonewood.enhancement.output_files import sidecar_path
from tonewood.enhancement.reapply import components_text
from tonewood.enhancement.recipe import Recipe, load_recipe
from tonewood.errors import CallError, OutputError, RecipeError, printable
from tonewood.export.formats import (
    EQUALIZER_FORMATS,
    MAX_JSFX_ROWS,
    GainTable,
    format_gain_csv,
    format_graphic_eq,
    format_jsfx,
)
from tonewood.mask.components import static_component
from tonewood.mask.mask import Mask
from tonewood.mask.render import effective_mask
from tonewood.model.model import Model, load_model
from tonewood.settings import RenderSettings
from tonewood.utils.arrays import FloatArray
from tonewood.utils.files import write_text


@dataclass(frozen=True)
class Correction:
    """Correction of a recipe or of a model."""

    name: str  # name that the user gave
    # Of a recipe: the mask after aspect and amount. Of a model: its static mask, one frame.
    mask: Mask
    gain_db: float  # gain of the output that matched its loudness; 0 for a model
    recipe: Recipe | None = None  # None for a model

    @property
    def seconds(self) -> float | None:
        """Duration of the recording; None for a model."""
        return self.recipe.input.samples / self.recipe.input.rate if self.recipe else None

    def average_db(self, hz: FloatArray) -> FloatArray:
        """Return the mean over time [frequency] in dB, without the gain of the output."""
        return static_component(self.mask).gain_at(hz, np.zeros(1))[:, 0].astype(np.float64)


def load_correction(name: str) -> Correction:
    """Load the correction of a recipe, of an output with its recipe beside it, or of a model.

    Parameters
    ----------
    name : str
        Path, or name of a bundled model.

    Raises
    ------
    RecipeError, ModelError
        The file is damaged, or is neither a recipe nor a model; or the recording has no recipe.
    """
    path = Path(name)
    if path.suffix.lower() in WRITABLE_SUFFIXES and not sidecar_path(path).is_file():
        raise RecipeError(
            f"{printable(path)} has no recipe beside it ({printable(sidecar_path(path).name)}): give an "
            "output of tonewood enhance, a recipe or a model"
        )
    # An output stands for its recipe.
    if sidecar_path(path).is_file():
        path = sidecar_path(path)
    if path.suffix.lower() == ".json":
        return correction_of_recipe(printable(name), load_recipe(path))
    return correction_of_model(printable(name), load_model(name))


def correction_of_recipe(name: str, recipe: Recipe) -> Correction:
    """Return the correction that a recipe applied to its recording."""
    if recipe.others:
        raise CallError(
            f"{name} has separate masks for {components_text(recipe)}, and one curve is needed: "
            "give a recipe without them"
        )
    mask = effective_mask(recipe.mask.to_mask(), recipe.settings.render, recipe.spectrum)
    return Correction(name, mask.load(), recipe.gain_db, recipe)


def correction_of_model(name: str, model: Model) -> Correction:
    """Return the static mask of a model: the part that is the same for all recordings."""
    spectrum = model.settings.spectrum
    mask = Mask(
        model.priors.static_db[:, None],
        center_frequencies(model.settings.scorer.bands, spectrum),
        spectrum.hop / spectrum.rate,
        spectrum.rate / 2,
    )
    return Correction(name, mask.clip(RenderSettings().max_gain_db), 0.0)


MAX_RESPONSE_ERROR_DB = 0.1  # a larger deviation of an impulse response gives a warning

# Nominal third octaves (IEC 61260), from 50 Hz to 16 kHz.
_THIRD_OCTAVES_HZ = np.array([
    50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1_000, 1_250, 1_600, 2_000,
    2_500, 3_150, 4_000, 5_000, 6_300, 8_000, 10_000, 12_500, 16_000,
], dtype=np.float64)  # fmt: skip
# Q = 1 / (2^(1/6) - 2^(-1/6)): the band edges lie a sixth of an octave from the centre.
_THIRD_OCTAVE_Q = float(1 / (2 ** (1 / 6) - 2 ** (-1 / 6)))
# 2^20 samples are 22 s at 48 kHz.
_MIN_RESPONSE_LENGTH, _MAX_RESPONSE_LENGTH = 64, 1 << 20
_POINTS_PER_BAND = 5  # frequencies at which the gain of a band is averaged


# The 127 frequencies of AutoEq's GraphicEQ files, which players on phones expect.
_GRAPHIC_EQ_HZ = np.unique(np.floor(20 * 1.0563 ** np.arange(127)))


@dataclass(frozen=True)
class ExportedFile:
    """File that was written."""

    output: Path
    data: dict[str, Any]  # contents and accuracy, for JSON
    lines: tuple[str, ...]  # the same as text
    warning: str | None = None


@dataclass(frozen=True)
class AverageCurve:
    """Average correction as a function of frequency, including the overall gain.

    `headroom` chooses the overall gain so that no frequency is above 0 dB.
    """

    correction: Correction
    headroom: bool = False

    @property
    def gain_db(self) -> float:
        """Overall gain, included in the curve."""
        if not self.headroom:
            return self.correction.gain_db
        hz = np.geomspace(20, 20_000, 1_000)  # dense enough for curves of mel bands
        return -max(0.0, float(self.correction.average_db(hz).max()))

    def __call__(self, hz: FloatArray) -> FloatArray:
        """Return the gain [frequency] in dB."""
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
    """Write the average correction as a mono impulse response in 32-bit float.

    `length` is in samples; the default is the next power of two above a sixth of a second.
    """
    if phase not in ("linear", "minimum"):
        raise CallError(f"--ir is {phase!r}: choose linear or minimum")
    _check_export_rate(rate)
    # A sixth of a second resolves 6 Hz, enough for the smooth curves of a mask.
    taps = 1 << (rate // 6 - 1).bit_length() if length is None else length
    if not _MIN_RESPONSE_LENGTH <= taps <= _MAX_RESPONSE_LENGTH:
        raise CallError(f"--length is {taps} samples: give {_MIN_RESPONSE_LENGTH} to {_MAX_RESPONSE_LENGTH}")
    if out.suffix.lower() not in WRITABLE_SUFFIXES:
        raise CallError(
            f"{printable(out)} is not the name of an audio file: use a name such as {printable(out.stem)}.wav"
        )
    response = design_impulse_response(curve, rate, taps, phase)
    error = magnitude_error_db(response, curve, rate, fit_grid_hz(rate))
    audio_format = AudioFormat.for_path(out, AudioFormat("WAV", "FLOAT"))
    if audio_format.subtype != "FLOAT" and np.abs(response).max() > 1:
        raise OutputError(
            f"{printable(out)} cannot store samples above 1, and this response has some: "
            "use a .wav name, or --headroom"
        )
    write_recording(out, response[None], rate, audio_format, overwrite=overwrite)
    # A linear-phase response is symmetric, so its delay is half its length.
    delay = (taps - 1 + taps % 2) // 2 if phase == "linear" else 0
    return ExportedFile(
        out,
        {"kind": "ir", "phase": phase, "rate": rate, "length": taps, "delay": delay,
         "error_db": round(error, 4), "gain_db": round(curve.gain_db, 2)},
        (f"{phase}-phase impulse response, {taps} samples at {rate} Hz, delay {delay}",
         f"within {error:.2f} dB of the average correction from 50 Hz to 16 kHz"),
        f"deviates up to {error:.2f} dB from the correction: use a larger --length"
        if error > MAX_RESPONSE_ERROR_DB else None,
    )  # fmt: skip


def export_parametric_eq(
    curve: AverageCurve,
    count: int,
    out: Path,
    *,
    file_format: str | None = None,
    rate: int = 48_000,
    limits: EqLimits = FREE_BANDS,
    overwrite: bool = False,
) -> ExportedFile:
    """Write the average correction as a parametric EQ with a number of bands.

    Parameters
    ----------
    file_format : {"apo", "autoeq", "rew", "camilladsp", "camilladsp2"}, optional
        By default CamillaDSP for .yml and .yaml, else Equalizer APO.
    limits : EqLimits
        Of the device.
    rate : int
        Sample rate that the bands will run at; near half of it, filters of other rates differ.
    """
    if not 1 <= count <= MAX_BANDS:
        raise CallError(f"--peq is {count} bands: give 1 to {MAX_BANDS}")
    _check_export_rate(rate)
    _check_limits(limits, rate)
    file_format = file_format or ("camilladsp" if out.suffix.lower() in (".yml", ".yaml") else "apo")
    if file_format not in EQUALIZER_FORMATS:
        raise CallError(f"--format is {file_format!r}: choose one of {', '.join(EQUALIZER_FORMATS)}")
    eq = fit_parametric_eq(curve(fit_grid_hz(rate)), count, rate, limits)
    if curve.headroom:
        eq = eq.with_headroom(rate)
    title = (
        f"Tonewood: average correction of {curve.correction.name}, for {rate} Hz; "
        f"left {eq.rms_db:.2f} dB rms, {eq.largest_db:.2f} dB at most, 50 Hz to 16 kHz"
    )
    write_text(out, EQUALIZER_FORMATS[file_format](eq, title), overwrite=overwrite)
    return ExportedFile(
        out,
        {"kind": "peq", "format": file_format, "rate": rate, **_fit_data(eq)},
        (f"{len(eq.bands)} bands for {rate} Hz, {_gain_text(eq.gain_db, curve)}",
         f"within {eq.rms_db:.2f} dB rms of the average correction, {eq.largest_db:.2f} dB at most"),
    )  # fmt: skip


def _check_limits(limits: EqLimits, rate: int) -> None:
    """Raise CallError if no band can keep the limits."""
    if not 0 < limits.max_gain_db <= MAX_BAND_GAIN_DB:
        raise CallError(
            f"--max-gain is {limits.max_gain_db:g} dB: give more than 0, up to {MAX_BAND_GAIN_DB:g}"
        )
    low_q, high_q = limits.q or (1.0, 1.0)
    if not 0.1 <= low_q <= high_q <= 100:
        raise CallError(f"--q is {low_q:g} to {high_q:g}: give a value or LOW:HIGH, from 0.1 to 100")
    for hz in limits.hz:
        if not 20 <= hz <= 0.47 * rate:
            raise CallError(f"--frequencies has {hz:g} Hz: give 20 to {0.47 * rate:.0f} Hz")


def export_graphic_eq(curve: AverageCurve, out: Path, *, overwrite: bool = False) -> ExportedFile:
    """Write the average correction as the GraphicEQ line of Equalizer APO."""
    gain_db = curve(_GRAPHIC_EQ_HZ)
    write_text(out, format_graphic_eq(_GRAPHIC_EQ_HZ, gain_db), overwrite=overwrite)
    count = len(_GRAPHIC_EQ_HZ)
    return ExportedFile(
        out,
        {"kind": "graphic-eq", "points": count, "gain_db": round(curve.gain_db, 2),
         "largest_db": round(float(np.abs(gain_db).max()), 2)},
        (f"{count} points from 20 Hz to {_GRAPHIC_EQ_HZ[-1]:.0f} Hz, {_gain_text(curve.gain_db, curve)}",),
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
    """Write a time-varying correction as automation of third octaves.

    Parameters
    ----------
    file_format : {"csv", "jsfx"}, optional
        By default a Reaper effect for .jsfx, else a table.
    step_s : float
        Time between rows.
    """
    seconds = correction.seconds
    if seconds is None:
        raise CallError(
            f"{correction.name} is a model, whose correction does not change over time: give a recipe, or "
            "use --ir or --peq"
        )
    file_format = file_format or ("jsfx" if out.suffix.lower() == ".jsfx" else "csv")
    if file_format not in ("csv", "jsfx"):
        raise CallError(f"--format is {file_format!r}: choose csv or jsfx")
    if not 0.01 <= step_s <= 10:
        raise CallError(f"--step is {step_s:g} s: give 0.01 to 10 s")
    table = third_octave_table(correction, np.arange(0.0, seconds, step_s))
    if file_format == "csv":
        text, rows = format_gain_csv(table), len(table.seconds)
    else:
        _check_export_rate(rate)
        thin = table.thin()
        text, rows = _effect_text(correction, thin, rate), len(thin.seconds)
    write_text(out, text, overwrite=overwrite)
    largest = float(np.abs(table.gain_db).max())
    return ExportedFile(
        out,
        {"kind": "automation", "format": file_format, "bands": len(table.hz), "rows": rows,
         "step_s": step_s, "seconds": round(seconds, 3), "largest_db": round(largest, 2),
         "gain_db": round(correction.gain_db, 2)},
        (f"{len(table.hz)} third octaves, {rows} rows, {largest:.1f} dB at most",
         f"overall gain {correction.gain_db:+.1f} dB"
         + ("" if file_format == "jsfx" else ", which the table does not include")),
    )  # fmt: skip


def _effect_text(correction: Correction, table: GainTable, rate: int) -> str:
    rows = len(table.seconds)
    if rows > MAX_JSFX_ROWS:
        raise CallError(
            f"the table has {rows} rows; an effect has room for {MAX_JSFX_ROWS}: use a larger --step"
        )
    # The table has the target gains; the effect needs filter gains, because filters overlap.
    filters = graphic_eq_gains(table.gain_db, table.hz, _THIRD_OCTAVE_Q, rate)
    title = f"Tonewood: {correction.name}"
    return format_jsfx(table, filters, _THIRD_OCTAVE_Q, correction.gain_db, title)


def third_octave_table(correction: Correction, seconds: FloatArray) -> GainTable:
    """Return the gains of the third octaves at some times, averaged over each band, in dB."""
    offsets = 2 ** ((np.arange(_POINTS_PER_BAND) - _POINTS_PER_BAND // 2) / _POINTS_PER_BAND / 3)
    hz = (_THIRD_OCTAVES_HZ[:, None] * offsets).ravel()
    gain = correction.mask.gain_at(hz, seconds).astype(np.float64)
    return GainTable(
        _THIRD_OCTAVES_HZ, seconds, gain.reshape(len(_THIRD_OCTAVES_HZ), _POINTS_PER_BAND, -1).mean(axis=1)
    )


def _gain_text(gain_db: float, curve: AverageCurve) -> str:
    """Return the overall gain of a preset in words, and why it is lower than the correction's."""
    is_lowered = curve.headroom and gain_db < 0
    reason = ", lowered against clipping (--no-headroom keeps the level)" if is_lowered else ""
    return f"overall gain {gain_db:+.1f} dB{reason}"


def _fit_data(eq: EqFit) -> dict[str, Any]:
    return {
        "gain_db": eq.gain_db,
        "bands": [band._asdict() for band in eq.bands],
        "rms_db": round(eq.rms_db, 3),
        "largest_db": round(eq.largest_db, 3),
    }


def _check_export_rate(rate: int) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise CallError(f"--rate is {rate} Hz: give {MIN_RATE} to {MAX_RATE} Hz")
