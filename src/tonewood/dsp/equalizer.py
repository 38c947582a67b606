"""Equalizers that follow a gain curve: parametric, graphic, as impulse response; band-pass and FIR filters.

Biquad coefficients are those of R. Bristow-Johnson's *Audio EQ Cookbook* (W3C Note, 2021), shelves
by Q, as in Equalizer APO, REW and CamillaDSP.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.utils.arrays import FloatArray, Samples

FilterType = Literal["low_shelf", "peaking", "high_shelf"]
Phase = Literal["linear", "minimum"]
GainCurve = Callable[[FloatArray], FloatArray]
"""Frequencies [point] in Hz → gains [point] in dB."""

MAX_BANDS = 20
FIT_LOW_HZ, FIT_HIGH_HZ = 50.0, 16_000.0
"""Range in which a fit is measured; the upper end is lower at low sample rates."""
STOPBAND_DB = 100.0
FADE_OCTAVES = 1 / 3
"""Width of the edges of `restrict_to_band`."""

_POINTS_PER_OCTAVE = 24
MAX_BAND_GAIN_DB = 24.0
_SHELF_LIMIT_HZ = 1_000.0  # a low shelf's corner lies below, a high shelf's above
_Q_RANGES: dict[FilterType, tuple[float, float]] = {
    "low_shelf": (0.3, 1.0),
    "peaking": (0.2, 10.0),
    "high_shelf": (0.3, 1.0),
}
_GAIN_PENALTY = 0.1  # without it neighbouring bands grow against one another
_DIFFERENCE_STEP = 1e-5
_MAX_BANDS_TRYING_SHELVES = 4  # trying all three filter types triples the time of a fit
_PROBE_DB = 6.0
_GRAPHIC_ROUNDS = 4
_OVERSAMPLING = 8  # design points for each sample of an impulse response
_KAISER_BETA = 1.0  # a larger one would blur the bass more than truncation does
_TAPS_PER_FFT = 8  # kernels of an eighth of the FFT leave seven eighths of it for output
_MIN_FADE_HZ = 40.0  # the 30 ms window of the masks resolves no less


class EqBand(NamedTuple):
    """One filter: its type, centre or corner in Hz, gain in dB, and Q."""

    kind: FilterType
    hz: float
    gain_db: float
    q: float


class EqFit(NamedTuple):
    """Parametric equalizer that follows a curve."""

    bands: tuple[EqBand, ...]  # by ascending frequency, rounded as in a text file
    gain_db: float  # gain at all frequencies
    # Deviation of the response from the curve, 50 Hz to 16 kHz on a logarithmic axis
    rms_db: float
    largest_db: float

    def with_headroom(self, rate: float) -> Self:
        """Return the bands with a gain that leaves none of their sum above 0 dB."""
        hz = np.geomspace(20, min(20_000, 0.49 * rate), 2_000)
        largest = float(eq_response_db(self.bands, hz, rate).max())
        # Rounded up, so that no hundredth is above.
        return self._replace(gain_db=-math.ceil(100 * max(0.0, largest)) / 100 + 0.0)


class EqLimits(NamedTuple):
    """Limits of the device or plug-in that bands are fitted for."""

    # Fixed centres; empty if they are free. Such a device has peaks only.
    hz: tuple[float, ...] = ()
    # Lowest and highest Q; equal if it is fixed. Such a device has peaks only.
    q: tuple[float, float] | None = None
    max_gain_db: float = MAX_BAND_GAIN_DB  # largest gain or attenuation of a band

    @property
    def has_shelves(self) -> bool:
        """True if the ends may be shelves."""
        return not self.hz and self.q is None

    def ranges(self, band: EqBand, rate: float) -> list[tuple[float, float]]:
        """Return the range of each parameter of a band: log2 of frequency, gain in dB, log2 of Q."""
        low_hz = _SHELF_LIMIT_HZ if band.kind == "high_shelf" else 20.0
        high_hz = _SHELF_LIMIT_HZ if band.kind == "low_shelf" else 0.47 * rate
        if self.hz:
            low_hz = high_hz = band.hz
        low_q, high_q = self.q or _Q_RANGES[band.kind]
        return [
            (np.log2(low_hz), np.log2(high_hz)),
            (-self.max_gain_db, self.max_gain_db),
            (np.log2(low_q), np.log2(high_q)),
        ]


FREE_BANDS = EqLimits()


class _Candidate(NamedTuple):
    """Bands during the fit, and their cost."""

    gain_db: float
    bands: tuple[EqBand, ...]
    cost: float


def biquad_coefficients(band: EqBand, rate: float) -> tuple[FloatArray, FloatArray]:
    """Return numerator and denominator [3] of a band; the denominator starts with 1."""
    a = 10 ** (band.gain_db / 40)
    w = 2 * np.pi * band.hz / rate
    cos, alpha = np.cos(w), np.sin(w) / (2 * band.q)
    if band.kind == "peaking":
        b = np.array([1 + alpha * a, -2 * cos, 1 - alpha * a])
        den = np.array([1 + alpha / a, -2 * cos, 1 - alpha / a])
    else:
        # A high shelf is a low shelf with z → -z, which mirrors frequency at a quarter of the rate.
        sign = 1.0 if band.kind == "low_shelf" else -1.0
        up, down, root = a + 1, (a - 1) * cos * sign, 2 * np.sqrt(a) * alpha
        first = 2 * sign * np.array([a - 1 - up * cos * sign, 1 - a - up * cos * sign])
        b = a * np.array([up - down + root, first[0], up - down - root])
        den = np.array([up + down + root, first[1], up + down - root])
    return b / den[0], den / den[0]


def eq_response_db(bands: tuple[EqBand, ...], hz: FloatArray, rate: float) -> FloatArray:
    """Return the gain [frequency] in dB of bands in series."""
    # z is the inverse of the usual z, so the coefficients ascend in it; polyval wants them to descend.
    z = np.exp(-2j * np.pi * np.asarray(hz) / rate)
    total = np.zeros(len(z))
    for band in bands:
        b, a = biquad_coefficients(band, rate)
        ratio = np.polyval(b[::-1], z) / np.polyval(a[::-1], z)
        total += 20 * np.log10(np.abs(ratio))
    return total


def graphic_eq_gains(target_db: FloatArray, centres_hz: FloatArray, q: float, rate: float) -> FloatArray:
    """Return gains [band, time] with which a graphic equalizer has the target [band, time] at its centres.

    All bands have the same Q. Neighbours overlap, nearly in proportion to their gains in dB (Abel &
    Berners 2004). So the gains solve a linear system, and a few rounds correct the remaining error.
    """
    w = 2 * np.pi * centres_hz / rate
    # On the unit circle a peak's numerator is, except for its phase, cos w - cos w0 + j α A sin w,
    # and its denominator the same with 1 / A.
    distance = np.square(np.cos(w)[:, None] - np.cos(w))  # [centre, band]
    alpha = np.square(np.sin(w)[:, None] * np.sin(w) / (2 * q))

    def response(gains_db: FloatArray) -> FloatArray:
        total = np.zeros((len(w), gains_db.shape[1]))
        for band, gains in enumerate(gains_db):
            near, wide = distance[:, band, None], alpha[:, band, None]
            a2 = 10 ** (gains / 20)
            total += 10 * np.log10((near + wide * a2) / (near + wide / a2))
        return total

    probes = [response(_PROBE_DB * row[:, None])[:, 0] / _PROBE_DB for row in np.eye(len(w))]
    overlap = np.stack(probes, axis=1)
    gains = np.linalg.solve(overlap, target_db)
    for _ in range(_GRAPHIC_ROUNDS):
        gains += np.linalg.solve(overlap, target_db - response(gains))
    return gains


def fit_grid_hz(rate: float) -> FloatArray:
    """Return the frequencies [point] at which curve and response are compared."""
    high = min(FIT_HIGH_HZ, 0.45 * rate)
    return np.geomspace(FIT_LOW_HZ, high, round(np.log2(high / FIT_LOW_HZ) * _POINTS_PER_OCTAVE) + 1)


def fit_parametric_eq(
    curve_db: FloatArray, band_count: int, rate: float, limits: EqLimits = FREE_BANDS
) -> EqFit:
    """Fit 1 to `MAX_BANDS` bands to a curve [point] in dB on `fit_grid_hz`, by least squares.

    The better of two results is returned. The first adds one band after another at the largest
    residual and refines all bands each time; up to four bands, a shelf is tried in place of a
    peak. The second starts with bands evenly spaced over the octaves, shelves at the ends.
    """
    assert 1 <= band_count <= MAX_BANDS
    hz = fit_grid_hz(rate)
    assert curve_db.shape == hz.shape
    mean = float(curve_db.mean())
    if limits.hz:
        assert len(limits.hz) == band_count
        q, gains = _q_of_even_bands(band_count, hz), np.interp(limits.hz, hz, curve_db - mean)
        fixed = tuple(
            EqBand("peaking", centre, float(gain), q) for centre, gain in zip(limits.hz, gains, strict=True)
        )
        return _round_bands(curve_db, _refine_bands(curve_db, mean, fixed, hz, rate, limits), hz, rate)
    best = _Candidate(mean, (), np.inf)
    for number in range(1, band_count + 1):
        residual = curve_db - best.gain_db - eq_response_db(best.bands, hz, rate)
        starts: list[EqBand] = [_strongest_peak(residual, hz)]
        if number <= _MAX_BANDS_TRYING_SHELVES and limits.has_shelves:
            kinds = {band.kind for band in best.bands}
            starts += [shelf for shelf in _shelf_candidates(residual, hz) if shelf.kind not in kinds]
        refined = [
            _refine_bands(curve_db, best.gain_db, (*best.bands, start), hz, rate, limits) for start in starts
        ]
        best = min(refined, key=lambda candidate: candidate.cost)
    spaced = _evenly_spaced_bands(curve_db - mean, hz, band_count, limits)
    even = _refine_bands(curve_db, mean, spaced, hz, rate, limits)
    return _round_bands(curve_db, even if even.cost < best.cost else best, hz, rate)


def _q_of_even_bands(count: int, hz: FloatArray) -> float:
    return float(np.clip(1.4 * count / np.log2(hz[-1] / hz[0]), 0.3, 8.0))


def _evenly_spaced_bands(
    residual_db: FloatArray, hz: FloatArray, count: int, limits: EqLimits
) -> tuple[EqBand, ...]:
    points = ((np.arange(count) + 0.5) / count * len(hz)).astype(int)
    q = _q_of_even_bands(count, hz)
    kinds: list[FilterType] = ["peaking"] * count
    if count > 2 and limits.has_shelves:
        kinds[0], kinds[-1] = "low_shelf", "high_shelf"
    return tuple(
        EqBand(kind, float(hz[point]), float(residual_db[point]), q if kind == "peaking" else 0.7)
        for kind, point in zip(kinds, points, strict=True)
    )


def _strongest_peak(residual_db: FloatArray, hz: FloatArray) -> EqBand:
    """Return a peak at the largest residual, as wide as the residual at half that height."""
    top = int(np.argmax(np.abs(residual_db)))
    above = residual_db * np.sign(residual_db[top]) > abs(residual_db[top]) / 2
    first = top - int(np.argmin(above[top::-1])) if not above[: top + 1].all() else 0
    beyond = ~above[top:]
    last = top + int(np.argmax(beyond)) if beyond.any() else len(hz) - 1
    octaves = max(float(np.log2(hz[last] / hz[first])), 0.2)
    # Q of a peak that is this wide at half its gain in dB (Audio EQ Cookbook).
    q = np.sqrt(2**octaves) / (2**octaves - 1)
    return EqBand("peaking", float(hz[top]), float(residual_db[top]), float(np.clip(q, 0.25, 8.0)))


def _shelf_candidates(residual_db: FloatArray, hz: FloatArray) -> list[EqBand]:
    octave = _POINTS_PER_OCTAVE
    low, high = float(residual_db[:octave].mean()), float(residual_db[-octave:].mean())
    return [
        EqBand("low_shelf", float(hz[2 * octave]), low, 0.7),
        EqBand("high_shelf", float(hz[-octave]), high, 0.7),
    ]


def _refine_bands(
    curve_db: FloatArray,
    gain_db: float,
    bands: tuple[EqBand, ...],
    hz: FloatArray,
    rate: float,
    device: EqLimits,
) -> _Candidate:
    """Return the gain and bands with the least square error within a device's limits, starting from these."""
    from scipy.optimize import least_squares  # slow to import, and only fits need it

    kinds = [band.kind for band in bands]

    # Parameters: overall gain, then log2 of frequency, gain in dB and log2 of Q for each band.
    limits = [(-MAX_BAND_GAIN_DB, MAX_BAND_GAIN_DB)]
    start = [gain_db]
    for band in bands:
        limits += device.ranges(band, rate)
        start += [np.log2(band.hz), band.gain_db, np.log2(band.q)]
    low, high = np.array(limits).T
    free = high > low

    def fill(values: FloatArray) -> FloatArray:
        """Return all parameters; those that the device fixes have their one value."""
        x: FloatArray = low.copy()
        x[free] = values
        return x

    def unpack(x: FloatArray) -> tuple[EqBand, ...]:
        return tuple(map(_band_from_parameters, kinds, x[1:].reshape(-1, 3)))

    def error(values: FloatArray) -> FloatArray:
        x = fill(values)
        residual = x[0] + eq_response_db(unpack(x), hz, rate) - curve_db
        return np.concatenate([residual, _GAIN_PENALTY * x[2::3]])

    def jacobian(values: FloatArray) -> FloatArray:
        x = fill(values)
        # By differences of one band's own response: 3 evaluations a band, not of all bands.
        columns = [np.ones(len(hz))]
        for kind, row in zip(kinds, x[1:].reshape(-1, 3), strict=True):
            at = eq_response_db((_band_from_parameters(kind, row),), hz, rate)
            for step in _DIFFERENCE_STEP * np.eye(3):
                moved_db = eq_response_db((_band_from_parameters(kind, row + step),), hz, rate)
                columns.append((moved_db - at) / _DIFFERENCE_STEP)
        penalty = np.zeros((len(kinds), len(x)))
        penalty[np.arange(len(kinds)), 2 + 3 * np.arange(len(kinds))] = _GAIN_PENALTY
        derivatives: FloatArray = np.vstack([np.stack(columns, axis=1), penalty])[:, free]
        return derivatives

    inside = np.clip(start, low + 1e-6, high - 1e-6)[free]
    result = least_squares(error, inside, jacobian, bounds=(low[free], high[free]), max_nfev=100)
    best = fill(result.x)
    return _Candidate(float(best[0]), unpack(best), float(result.cost))


def _band_from_parameters(kind: FilterType, row: FloatArray) -> EqBand:
    return EqBand(kind, float(2 ** row[0]), float(row[1]), float(2 ** row[2]))


def _round_bands(curve_db: FloatArray, candidate: _Candidate, hz: FloatArray, rate: float) -> EqFit:
    """Round the bands as files hold them, and measure the deviation of the rounded ones."""
    bands = tuple(
        EqBand(band.kind, round(band.hz, 1), round(band.gain_db, 2), round(band.q, 3))
        for band in sorted(candidate.bands, key=lambda band: band.hz)
    )
    gain = round(candidate.gain_db, 2)
    residual = curve_db - gain - eq_response_db(bands, hz, rate)
    return EqFit(bands, gain, float(np.sqrt(np.square(residual).mean())), float(np.abs(residual).max()))


def design_impulse_response(curve: GainCurve, rate: int, length: int, phase: Phase) -> Samples:
    """Return an impulse response [length] whose magnitude follows a curve, to about rate / length Hz.

    The linear-phase one is symmetric about sample (length - 1) // 2, its delay; an even length
    ends with a zero. The minimum-phase one starts at once (homomorphic method).
    """
    # An odd number of taps has a middle one, hence a delay of whole samples.
    taps = length - 1 + length % 2
    fft = 1 << (_OVERSAMPLING * taps - 1).bit_length()
    hz = np.arange(fft // 2 + 1) * (rate / fft)
    centred = np.fft.irfft(10 ** (curve(hz) / 20), fft)
    half = taps // 2
    response: FloatArray = np.concatenate([centred[-half:], centred[: half + 1]]) * np.kaiser(
        taps, _KAISER_BETA
    )
    if phase == "minimum":
        response = _minimum_phase(response, fft)
    return np.pad(response, (0, length - taps)).astype(np.float32)


def _minimum_phase(response: FloatArray, fft: int) -> FloatArray:
    """Return the minimum-phase response [sample] of the same magnitude (Oppenheim & Schafer 1975)."""
    magnitude = np.abs(np.fft.rfft(response, fft))
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, 1e-7 * magnitude.max())), fft)
    # The cepstrum of a minimum-phase response is causal: its odd part equals the even one after 0.
    cepstrum[1 : fft // 2] *= 2
    cepstrum[fft // 2 + 1 :] = 0
    minimum: FloatArray = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)), fft)[: len(response)]
    return minimum


def magnitude_error_db(response: Samples, curve: GainCurve, rate: int, hz: FloatArray) -> float:
    """Return the largest deviation in dB of a response's magnitude from a curve at frequencies."""
    fft = 1 << (4 * max(len(response), rate // 8) - 1).bit_length()
    magnitude = np.abs(np.fft.rfft(response.astype(np.float64), fft))
    bins_hz = np.arange(len(magnitude)) * (rate / fft)
    actual = np.interp(hz, bins_hz, 20 * np.log10(magnitude + 1e-12))
    return float(np.abs(actual - curve(hz)).max())


def restrict_to_band(
    original: Samples, modified: Samples, rate: int, low_hz: float, high_hz: float
) -> Samples:
    """Return the original with the modification inside a band only.

    The difference passes a linear-phase band-pass without delay (Kaiser's window, 1974). It fades
    inside the band over a third of an octave, or over 40 Hz if that is more, and is 100 dB down
    outside. An end beyond the Nyquist frequency is ignored.
    """
    change = filter_without_delay(modified - original, _bandpass_kernel(rate, low_hz, high_hz))
    restricted: Samples = original + change.astype(np.float32)
    return restricted


def fade_width_hz(low_hz: float, high_hz: float) -> float:
    """Return the width of each fade: that of the lower, narrower one; at most half the band."""
    return min(max(low_hz * (2**FADE_OCTAVES - 1), _MIN_FADE_HZ), (high_hz - low_hz) / 2)


def bandpass_reach_seconds(low_hz: float, high_hz: float) -> float:
    """Return the half length of the band-pass, longer for narrower fades (Kaiser's rule)."""
    return kaiser_filter_order(STOPBAND_DB, fade_width_hz(low_hz, high_hz)) / 2


def _bandpass_kernel(rate: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    fade = fade_width_hz(low_hz, high_hz)
    taps = 2 * round(bandpass_reach_seconds(low_hz, high_hz) * rate) + 1
    if low_hz + fade / 2 >= rate / 2:
        return np.zeros(taps)
    return kaiser_filter(taps, low_hz + fade / 2, high_hz - fade / 2, STOPBAND_DB, rate)


# Linear-phase FIR filters. `scipy.signal` has them too, but takes half a second to import, and every
# command that renders would wait.


def kaiser_filter_order(stopband_db: float, transition_hz: float) -> float:
    """Return the length of a filter in seconds, less one sample, by Kaiser's rule (1974)."""
    return (stopband_db - 7.95) / (2.285 * 2 * math.pi * transition_hz)


def kaiser_filter(
    taps: int, low_hz: float, high_hz: float, stopband_db: float, rate: float
) -> NDArray[np.float64]:
    """Return a symmetric kernel [tap] that passes a band; its edges are at half the amplitude.

    A band from 0 Hz is a low-pass, one up to the Nyquist frequency a high-pass. The gain is 1 in the
    middle of the band, or at its end at 0 Hz or the Nyquist frequency. The attenuation is at least 50 dB.
    """
    low, high = 2 * low_hz / rate, min(2 * high_hz / rate, 1.0)
    time = np.arange(taps) - (taps - 1) / 2
    ideal = high * np.sinc(high * time) - low * np.sinc(low * time)
    kernel = ideal * np.kaiser(taps, 0.1102 * (stopband_db - 8.7))
    middle = 0.0 if low == 0 else 1.0 if high == 1 else (low + high) / 2
    scaled: NDArray[np.float64] = kernel / (kernel @ np.cos(np.pi * middle * time))
    return scaled


def filter_without_delay(samples: FloatArray, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return samples (channels, samples) filtered by a symmetric kernel [tap] of odd length.

    Beyond both ends there is silence.
    """
    length, taps = samples.shape[1], len(kernel)
    fft = 1 << (min(_TAPS_PER_FFT * taps, length + taps - 1) - 1).bit_length()
    hop, delay = fft - taps + 1, taps // 2
    transfer = np.fft.rfft(kernel, fft)
    filtered = np.empty(samples.shape)
    padded = np.pad(samples, ((0, 0), (delay, delay)))
    # Overlap-save: the first outputs of each block are those that the FFT wraps around.
    for start in range(0, length, hop):
        block = padded[:, start : start + fft].astype(np.float64)
        output = np.fft.irfft(np.fft.rfft(block, fft) * transfer, fft)[:, taps - 1 :]
        filtered[:, start : start + hop] = output[:, : length - start]
    return filtered
