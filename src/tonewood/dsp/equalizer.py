"""Parametric equalisers: biquads, their response, and how few of them follow a curve.

Coefficients are those of R. Bristow-Johnson's *Audio EQ Cookbook* (W3C Note, 2021), shelves by Q,
as Equalizer APO, REW and CamillaDSP have them.

Impulse responses of a curve in dB: linear-phase and minimum-phase.

One band alone: what lies outside of it is not to be touched by anybody.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.signal import firwin, minimum_phase, oaconvolve
from scipy.signal.windows import kaiser

from tonewood.utils.arrays import FloatArray, Samples

FilterType = Literal["low_shelf", "peaking", "high_shelf"]

MAX_BANDS = 20
FIT_LOW_HZ, FIT_HIGH_HZ = 50.0, 16_000.0
"""Where a fit is measured; above, as far as the rate goes."""

_POINTS_PER_OCTAVE = 24
_MAX_GAIN_DB = 24.0
_SHELF_LIMIT_HZ = 1_000.0  # a low shelf's corner lies below, a high shelf's above
_Q_RANGES: dict[FilterType, tuple[float, float]] = {
    "low_shelf": (0.3, 1.0),
    "peaking": (0.2, 10.0),
    "high_shelf": (0.3, 1.0),
}
_GAIN_PENALTY = 0.1  # of every band's gain: without it neighbours grow against one another
_PROBE_DB = 6.0
_GRAPHIC_ROUNDS = 4
_DIFFERENCE_STEP = 1e-5
_MAX_BANDS_TRYING_SHELVES = 4  # bands up to which a shelf is tried in place of every peak


class EqBand(NamedTuple):
    """One filter: its kind, centre or corner in Hz, gain in dB, and Q."""

    kind: FilterType
    hz: float
    gain_db: float
    q: float


class EqFit(NamedTuple):
    """Bands that follow a curve.

    Parameters
    ----------
    bands : tuple of EqBand
        By rising frequency, in figures that a text file can hold.
    gain_db : float
        Of the whole.
    rms_db, largest_db : float
        What is left between curve and response from 50 Hz to 16 kHz, octaves weighing alike.
    """

    bands: tuple[EqBand, ...]
    gain_db: float
    rms_db: float
    largest_db: float


def biquad_coefficients(band: EqBand, rate: float) -> tuple[FloatArray, FloatArray]:
    """Numerator and denominator [3] of a band, the latter's first being 1."""
    a = 10 ** (band.gain_db / 40)
    w = 2 * np.pi * band.hz / rate
    cos, alpha = np.cos(w), np.sin(w) / (2 * band.q)
    if band.kind == "peaking":
        b = np.array([1 + alpha * a, -2 * cos, 1 - alpha * a])
        den = np.array([1 + alpha / a, -2 * cos, 1 - alpha / a])
    else:
        # A high shelf is a low shelf seen from the Nyquist frequency: z → -z.
        turned = 1.0 if band.kind == "low_shelf" else -1.0
        up, down, root = a + 1, (a - 1) * cos * turned, 2 * np.sqrt(a) * alpha
        first = 2 * turned * np.array([a - 1 - up * cos * turned, 1 - a - up * cos * turned])
        b = a * np.array([up - down + root, first[0], up - down - root])
        den = np.array([up + down + root, first[1], up + down - root])
    return b / den[0], den / den[0]


def eq_response_db(bands: tuple[EqBand, ...], hz: FloatArray, rate: float) -> FloatArray:
    """Gain [frequency] in dB of some bands one after the other."""
    z = np.exp(-2j * np.pi * np.asarray(hz) / rate)
    total = np.zeros(len(z))
    for band in bands:
        b, a = biquad_coefficients(band, rate)
        ratio = np.polyval(b[::-1], z) / np.polyval(a[::-1], z)
        total += 20 * np.log10(np.abs(ratio))
    return total


def graphic_eq_gains(target_db: FloatArray, centres_hz: FloatArray, q: float, rate: float) -> FloatArray:
    """Gains [band, time] of a graphic equaliser whose whole response at its centres is a table.

    Neighbouring bands reach into one another, nearly in proportion to their gains in dB (Abel &
    Berners 2004): what is amiss is put right by solving that system, a few times over.

    Parameters
    ----------
    target_db : array [band, time]
        Wanted at the centres, dB.
    q : float
        Of every band.
    """
    w = 2 * np.pi * centres_hz / rate
    # On the unit circle a peak's numerator is, but for its phase, cos w - cos w0 + j α A sin w,
    # and its denominator the same with 1 / A.
    away = np.square(np.cos(w)[:, None] - np.cos(w))  # [centre, band]
    alpha = np.square(np.sin(w)[:, None] * np.sin(w) / (2 * q))

    def response(gains_db: FloatArray) -> FloatArray:
        total = np.zeros((len(w), gains_db.shape[1]))
        for band, gains in enumerate(gains_db):
            near, wide = away[:, band, None], alpha[:, band, None]
            a2 = 10 ** (gains / 20)
            total += 10 * np.log10((near + wide * a2) / (near + wide / a2))
        return total

    reach = np.stack([response(_PROBE_DB * row[:, None])[:, 0] / _PROBE_DB for row in np.eye(len(w))], axis=1)
    gains = np.linalg.solve(reach, target_db)
    for _ in range(_GRAPHIC_ROUNDS):
        gains += np.linalg.solve(reach, target_db - response(gains))
    return gains


def fit_grid_hz(rate: float) -> FloatArray:
    """Frequencies [point] at which curve and response are compared: 24 an octave."""
    high = min(FIT_HIGH_HZ, 0.45 * rate)
    return np.geomspace(FIT_LOW_HZ, high, round(np.log2(high / FIT_LOW_HZ) * _POINTS_PER_OCTAVE) + 1)


def fit_parametric_eq(curve_db: FloatArray, band_count: int, rate: float) -> EqFit:
    """Fit so many bands to a curve [point] in dB on `fit_grid_hz`, by least squares.

    Two ways to begin, of which the better one stays. One band after the other is set where most is
    left, and all that are there are then moved together; while they are few, a shelf is tried in
    place of the peak. Or all are spread evenly over the octaves, shelves at the ends.

    Parameters
    ----------
    band_count : int
        From 1 to 20.
    """
    assert 1 <= band_count <= MAX_BANDS
    hz = fit_grid_hz(rate)
    assert curve_db.shape == hz.shape
    mean = float(curve_db.mean())
    gain, bands, cost = mean, tuple[EqBand, ...](), np.inf
    for number in range(1, band_count + 1):
        left = curve_db - gain - eq_response_db(bands, hz, rate)
        starts: list[EqBand] = [_strongest_peak(left, hz)]
        if number <= _MAX_BANDS_TRYING_SHELVES:
            kinds = {band.kind for band in bands}
            starts += [shelf for shelf in _shelf_candidates(left, hz) if shelf.kind not in kinds]
        tried = [_refine_bands(curve_db, gain, (*bands, start), hz, rate) for start in starts]
        gain, bands, cost = min(tried, key=lambda it: it[2])
    spread = _refine_bands(curve_db, mean, _evenly_spaced_bands(curve_db - mean, hz, band_count), hz, rate)
    if spread[2] < cost:
        gain, bands, _ = spread
    return _round_bands(curve_db, gain, bands, hz, rate)


def _evenly_spaced_bands(residual_db: FloatArray, hz: FloatArray, count: int) -> tuple[EqBand, ...]:
    """Bands over all octaves alike, each with the gain that the curve has there."""
    places = ((np.arange(count) + 0.5) / count * len(hz)).astype(int)
    q = float(np.clip(1.4 * count / np.log2(hz[-1] / hz[0]), 0.3, 8.0))
    kinds: list[FilterType] = ["peaking"] * count
    if count > 2:
        kinds[0], kinds[-1] = "low_shelf", "high_shelf"
    return tuple(
        EqBand(kind, float(hz[place]), float(residual_db[place]), q if kind == "peaking" else 0.7)
        for kind, place in zip(kinds, places, strict=True)
    )


def _strongest_peak(residual_db: FloatArray, hz: FloatArray) -> EqBand:
    """A peak where most is left, as wide as what is left of that sign."""
    place = int(np.argmax(np.abs(residual_db)))
    alike = residual_db * np.sign(residual_db[place]) > abs(residual_db[place]) / 2
    first = place - int(np.argmin(alike[place::-1])) if not alike[: place + 1].all() else 0
    beyond = ~alike[place:]
    last = place + int(np.argmax(beyond)) if beyond.any() else len(hz) - 1
    octaves = max(float(np.log2(hz[last] / hz[first])), 0.2)
    q = np.sqrt(2**octaves) / (2**octaves - 1)
    return EqBand("peaking", float(hz[place]), float(residual_db[place]), float(np.clip(q, 0.25, 8.0)))


def _shelf_candidates(residual_db: FloatArray, hz: FloatArray) -> list[EqBand]:
    octave = _POINTS_PER_OCTAVE
    low, high = float(residual_db[:octave].mean()), float(residual_db[-octave:].mean())
    return [
        EqBand("low_shelf", float(hz[2 * octave]), low, 0.7),
        EqBand("high_shelf", float(hz[-octave]), high, 0.7),
    ]


def _refine_bands(
    curve_db: FloatArray, gain_db: float, bands: tuple[EqBand, ...], hz: FloatArray, rate: float
) -> tuple[float, tuple[EqBand, ...], float]:
    """Gain and bands moved to where the square error is least; and that error."""
    kinds = [band.kind for band in bands]
    limits = [(-_MAX_GAIN_DB, _MAX_GAIN_DB)]
    start = [gain_db]
    for band in bands:
        limits += [
            (
                np.log2(_SHELF_LIMIT_HZ if band.kind == "high_shelf" else 20.0),
                np.log2(_SHELF_LIMIT_HZ if band.kind == "low_shelf" else 0.47 * rate),
            ),
            (-_MAX_GAIN_DB, _MAX_GAIN_DB),
            (np.log2(_Q_RANGES[band.kind][0]), np.log2(_Q_RANGES[band.kind][1])),
        ]
        start += [np.log2(band.hz), band.gain_db, np.log2(band.q)]
    low, high = np.array(limits).T

    def unpacked(x: FloatArray) -> tuple[EqBand, ...]:
        return tuple(map(_band_from_parameters, kinds, x[1:].reshape(-1, 3)))

    def error(x: FloatArray) -> NDArray[np.float64]:
        left = x[0] + eq_response_db(unpacked(x), hz, rate) - curve_db
        return np.concatenate([left, _GAIN_PENALTY * x[2::3]])

    def slope(x: FloatArray) -> NDArray[np.float64]:
        """Jacobian by differences, each band's own response alone."""
        columns = [np.ones(len(hz))]
        for kind, row in zip(kinds, x[1:].reshape(-1, 3), strict=True):
            at = eq_response_db((_band_from_parameters(kind, row),), hz, rate)
            for step in _DIFFERENCE_STEP * np.eye(3):
                columns.append(
                    (eq_response_db((_band_from_parameters(kind, row + step),), hz, rate) - at)
                    / _DIFFERENCE_STEP
                )
        ridge = np.zeros((len(kinds), len(x)))
        ridge[np.arange(len(kinds)), 2 + 3 * np.arange(len(kinds))] = _GAIN_PENALTY
        return np.vstack([np.stack(columns, axis=1), ridge])

    inside = np.clip(start, low + 1e-6, high - 1e-6)
    found = least_squares(error, inside, slope, bounds=(low, high), max_nfev=100)
    return float(found.x[0]), unpacked(found.x), float(found.cost)


def _band_from_parameters(kind: FilterType, row: FloatArray) -> EqBand:
    """Band of a row of parameters: octaves of frequency, gain in dB, octaves of Q."""
    return EqBand(kind, float(2 ** row[0]), float(row[1]), float(2 ** row[2]))


def _round_bands(
    curve_db: FloatArray, gain_db: float, bands: tuple[EqBand, ...], hz: FloatArray, rate: float
) -> EqFit:
    """Bands in the figures that files hold, and what is left of the curve by those."""
    kept = tuple(
        EqBand(band.kind, round(band.hz, 1), round(band.gain_db, 2), round(band.q, 3))
        for band in sorted(bands, key=lambda band: band.hz)
    )
    gain = round(gain_db, 2)
    left = curve_db - gain - eq_response_db(kept, hz, rate)
    return EqFit(kept, gain, float(np.sqrt(np.square(left).mean())), float(np.abs(left).max()))


Phase = Literal["linear", "minimum"]
GainCurve = Callable[[FloatArray], FloatArray]
"""Frequencies [point] in Hz → gains [point] in dB."""

_OVERSAMPLING = 8  # points of the design for every sample of the response
_KAISER_BETA = 1.0  # of Kaiser's window: more of it would blur the bass more than cutting off does


def design_impulse_response(curve: GainCurve, rate: int, length: int, phase: Phase) -> NDArray[np.float32]:
    """Response [length] whose magnitude follows a curve.

    The linear-phase one is symmetric about sample (length - 1) // 2, by which it delays; an even
    length ends with a zero. The minimum-phase one begins at once (homomorphic, by scipy).

    Parameters
    ----------
    rate : int
        Hz.
    length : int
        Samples: the longer, the finer the bass, rate / length Hz or so.
    """
    taps = length - 1 + length % 2
    fft = 1 << (_OVERSAMPLING * taps - 1).bit_length()
    hz = np.arange(fft // 2 + 1) * (rate / fft)
    centred = np.fft.irfft(10 ** (curve(hz) / 20), fft)
    half = taps // 2
    linear = np.concatenate([centred[-half:], centred[: half + 1]]) * kaiser(taps, _KAISER_BETA)
    made = linear
    if phase == "minimum":
        made = minimum_phase(linear, method="homomorphic", n_fft=fft, half=False)
    return np.pad(made, (0, length - taps)).astype(np.float32)


def magnitude_error_db(response: NDArray[np.float32], curve: GainCurve, rate: int, hz: FloatArray) -> float:
    """Largest difference in dB between a response's magnitude and a curve at some frequencies."""
    fft = 1 << (4 * max(len(response), rate // 8) - 1).bit_length()
    magnitude = np.abs(np.fft.rfft(response.astype(np.float64), fft))
    place = np.arange(len(magnitude)) * (rate / fft)
    made = np.interp(hz, place, 20 * np.log10(magnitude + 1e-12))
    return float(np.abs(made - curve(hz)).max())


STOPBAND_DB = 100.0
FADE_OCTAVES = 1 / 3
_MIN_FADE_HZ = 40.0  # of a fade: the 30 ms window of the masks resolves no less


def restrict_to_band(
    original: Samples, modified: Samples, rate: int, low_hz: float, high_hz: float
) -> Samples:
    """A recording changed in one band alone: itself, and of the change what the band holds.

    The change is passed through a linear-phase band-pass, in time with the recording: faded inside
    the band over a third of an octave, or over 40 Hz where that is more; 100 dB down outside
    (Kaiser's window, 1974). An end beyond the Nyquist frequency is no end.

    Parameters
    ----------
    original, modified : Block
        The recording, and what was made of it.
    """
    kernel = _bandpass_kernel(rate, low_hz, high_hz)
    change = oaconvolve((modified - original).astype(np.float64), kernel[None], axes=1)
    change = change[:, len(kernel) // 2 :][:, : original.shape[1]]
    only: Samples = original + change.astype(np.float32)
    return only


def fade_width_hz(low_hz: float, high_hz: float) -> float:
    """Width of each fade: of the lower one, the narrower; at most half the band."""
    return min(max(low_hz * (2**FADE_OCTAVES - 1), _MIN_FADE_HZ), (high_hz - low_hz) / 2)


def bandpass_reach_seconds(low_hz: float, high_hz: float) -> float:
    """How far the band-pass reaches, either way: longer for narrower fades (Kaiser's rule)."""
    return (STOPBAND_DB - 7.95) / (2.285 * 2 * np.pi * fade_width_hz(low_hz, high_hz)) / 2


def _bandpass_kernel(rate: int, low_hz: float, high_hz: float) -> FloatArray:
    fade = fade_width_hz(low_hz, high_hz)
    cuts = [low_hz + fade / 2, high_hz - fade / 2]
    taps = 2 * round(bandpass_reach_seconds(low_hz, high_hz) * rate) + 1
    if cuts[0] >= rate / 2:
        return np.zeros(taps)
    if cuts[1] >= rate / 2:
        cuts.pop()
    beta = 0.1102 * (STOPBAND_DB - 8.7)
    kernel: FloatArray = firwin(taps, cuts, window=("kaiser", beta), pass_zero=False, fs=rate)
    return kernel
