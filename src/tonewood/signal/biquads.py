"""Parametric equalisers: biquads, their response, and how few of them follow a curve.

Coefficients are those of R. Bristow-Johnson's *Audio EQ Cookbook* (W3C Note, 2021), shelves by Q,
as Equalizer APO, REW and CamillaDSP have them.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tonewood.signal.spectrum import Floats

Kind = Literal["low_shelf", "peaking", "high_shelf"]

MAX_BANDS = 20
LOW_HZ, HIGH_HZ = 50.0, 16_000.0
"""Where a fit is measured; above, as far as the rate goes."""

_PER_OCTAVE = 24
_GAIN_DB = 24.0
_SHELVES_HZ = 1_000.0  # a low shelf's corner lies below, a high shelf's above
_Q: dict[Kind, tuple[float, float]] = {
    "low_shelf": (0.3, 1.0),
    "peaking": (0.2, 10.0),
    "high_shelf": (0.3, 1.0),
}
_RIDGE = 0.1  # of every band's gain: without it neighbours grow against one another
_PROBE_DB = 6.0
_GRAPHIC_ROUNDS = 4
_STEP = 1e-5
_BOTH_TRIED = 4  # bands up to which a shelf is tried in place of every peak


class Band(NamedTuple):
    """One filter: its kind, centre or corner in Hz, gain in dB, and Q."""

    kind: Kind
    hz: float
    gain_db: float
    q: float


class Fit(NamedTuple):
    """Bands that follow a curve.

    Parameters
    ----------
    bands : tuple of Band
        By rising frequency, in figures that a text file can hold.
    gain_db : float
        Of the whole.
    rms_db, largest_db : float
        What is left between curve and response from 50 Hz to 16 kHz, octaves weighing alike.
    """

    bands: tuple[Band, ...]
    gain_db: float
    rms_db: float
    largest_db: float


def coefficients(band: Band, rate: float) -> tuple[Floats, Floats]:
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


def response_db(bands: tuple[Band, ...], hz: Floats, rate: float) -> Floats:
    """Gain [frequency] in dB of some bands one after the other."""
    z = np.exp(-2j * np.pi * np.asarray(hz) / rate)
    total = np.zeros(len(z))
    for band in bands:
        b, a = coefficients(band, rate)
        ratio = np.polyval(b[::-1], z) / np.polyval(a[::-1], z)
        total += 20 * np.log10(np.abs(ratio))
    return total


def graphic(table_db: Floats, centres_hz: Floats, q: float, rate: float) -> Floats:
    """Gains [band, time] of a graphic equaliser whose whole response at its centres is a table.

    Neighbouring bands reach into one another, nearly in proportion to their gains in dB (Abel &
    Berners 2004): what is amiss is put right by solving that system, a few times over.

    Parameters
    ----------
    table_db : array [band, time]
        Wanted at the centres, dB.
    q : float
        Of every band.
    """
    w = 2 * np.pi * centres_hz / rate
    # On the unit circle a peak's numerator is, but for its phase, cos w - cos w0 + j α A sin w,
    # and its denominator the same with 1 / A.
    away = np.square(np.cos(w)[:, None] - np.cos(w))  # [centre, band]
    alpha = np.square(np.sin(w)[:, None] * np.sin(w) / (2 * q))

    def response(gains_db: Floats) -> Floats:
        total = np.zeros((len(w), gains_db.shape[1]))
        for band, gains in enumerate(gains_db):
            near, wide = away[:, band, None], alpha[:, band, None]
            a2 = 10 ** (gains / 20)
            total += 10 * np.log10((near + wide * a2) / (near + wide / a2))
        return total

    reach = np.stack(
        [response(_PROBE_DB * row[:, None])[:, 0] / _PROBE_DB for row in np.eye(len(w))], axis=1
    )
    gains = np.linalg.solve(reach, table_db)
    for _ in range(_GRAPHIC_ROUNDS):
        gains += np.linalg.solve(reach, table_db - response(gains))
    return gains


def grid_hz(rate: float) -> Floats:
    """Frequencies [point] at which curve and response are compared: 24 an octave."""
    high = min(HIGH_HZ, 0.45 * rate)
    return np.geomspace(LOW_HZ, high, round(np.log2(high / LOW_HZ) * _PER_OCTAVE) + 1)


def fit(curve_db: Floats, count: int, rate: float) -> Fit:
    """Fit so many bands to a curve [point] in dB on `grid_hz`, by least squares.

    Two ways to begin, of which the better one stays. One band after the other is set where most is
    left, and all that are there are then moved together; while they are few, a shelf is tried in
    place of the peak. Or all are spread evenly over the octaves, shelves at the ends.

    Parameters
    ----------
    count : int
        From 1 to 20.
    """
    assert 1 <= count <= MAX_BANDS
    hz = grid_hz(rate)
    assert curve_db.shape == hz.shape
    mean = float(curve_db.mean())
    gain, bands, cost = mean, tuple[Band, ...](), np.inf
    for number in range(1, count + 1):
        left = curve_db - gain - response_db(bands, hz, rate)
        starts: list[Band] = [_peak(left, hz)]
        if number <= _BOTH_TRIED:
            kinds = {band.kind for band in bands}
            starts += [shelf for shelf in _shelves(left, hz) if shelf.kind not in kinds]
        tried = [_moved(curve_db, gain, (*bands, start), hz, rate) for start in starts]
        gain, bands, cost = min(tried, key=lambda it: it[2])
    spread = _moved(curve_db, mean, _spread(curve_db - mean, hz, count), hz, rate)
    if spread[2] < cost:
        gain, bands, _ = spread
    return _stated(curve_db, gain, bands, hz, rate)


def _spread(left: Floats, hz: Floats, count: int) -> tuple[Band, ...]:
    """Bands over all octaves alike, each with the gain that the curve has there."""
    places = ((np.arange(count) + 0.5) / count * len(hz)).astype(int)
    q = float(np.clip(1.4 * count / np.log2(hz[-1] / hz[0]), 0.3, 8.0))
    kinds: list[Kind] = ["peaking"] * count
    if count > 2:
        kinds[0], kinds[-1] = "low_shelf", "high_shelf"
    return tuple(
        Band(kind, float(hz[place]), float(left[place]), q if kind == "peaking" else 0.7)
        for kind, place in zip(kinds, places, strict=True)
    )


def _peak(left: Floats, hz: Floats) -> Band:
    """A peak where most is left, as wide as what is left of that sign."""
    place = int(np.argmax(np.abs(left)))
    alike = left * np.sign(left[place]) > abs(left[place]) / 2
    first = place - int(np.argmin(alike[place::-1])) if not alike[: place + 1].all() else 0
    beyond = ~alike[place:]
    last = place + int(np.argmax(beyond)) if beyond.any() else len(hz) - 1
    octaves = max(float(np.log2(hz[last] / hz[first])), 0.2)
    q = np.sqrt(2**octaves) / (2**octaves - 1)
    return Band("peaking", float(hz[place]), float(left[place]), float(np.clip(q, 0.25, 8.0)))


def _shelves(left: Floats, hz: Floats) -> list[Band]:
    octave = _PER_OCTAVE
    low, high = float(left[:octave].mean()), float(left[-octave:].mean())
    return [
        Band("low_shelf", float(hz[2 * octave]), low, 0.7),
        Band("high_shelf", float(hz[-octave]), high, 0.7),
    ]


def _moved(
    curve_db: Floats, gain_db: float, bands: tuple[Band, ...], hz: Floats, rate: float
) -> tuple[float, tuple[Band, ...], float]:
    """Gain and bands moved to where the square error is least; and that error."""
    kinds = [band.kind for band in bands]
    limits = [(-_GAIN_DB, _GAIN_DB)]
    start = [gain_db]
    for band in bands:
        limits += [
            (
                np.log2(_SHELVES_HZ if band.kind == "high_shelf" else 20.0),
                np.log2(_SHELVES_HZ if band.kind == "low_shelf" else 0.47 * rate),
            ),
            (-_GAIN_DB, _GAIN_DB),
            (np.log2(_Q[band.kind][0]), np.log2(_Q[band.kind][1])),
        ]
        start += [np.log2(band.hz), band.gain_db, np.log2(band.q)]
    low, high = np.array(limits).T

    def unpacked(x: Floats) -> tuple[Band, ...]:
        return tuple(map(_band, kinds, x[1:].reshape(-1, 3)))

    def error(x: Floats) -> NDArray[np.float64]:
        left = x[0] + response_db(unpacked(x), hz, rate) - curve_db
        return np.concatenate([left, _RIDGE * x[2::3]])

    def slope(x: Floats) -> NDArray[np.float64]:
        """Jacobian by differences, each band's own response alone."""
        columns = [np.ones(len(hz))]
        for kind, row in zip(kinds, x[1:].reshape(-1, 3), strict=True):
            at = response_db((_band(kind, row),), hz, rate)
            for step in _STEP * np.eye(3):
                columns.append((response_db((_band(kind, row + step),), hz, rate) - at) / _STEP)
        ridge = np.zeros((len(kinds), len(x)))
        ridge[np.arange(len(kinds)), 2 + 3 * np.arange(len(kinds))] = _RIDGE
        return np.vstack([np.stack(columns, axis=1), ridge])

    inside = np.clip(start, low + 1e-6, high - 1e-6)
    found = least_squares(error, inside, slope, bounds=(low, high), max_nfev=100)
    return float(found.x[0]), unpacked(found.x), float(found.cost)


def _band(kind: Kind, row: Floats) -> Band:
    """Band of a row of parameters: octaves of frequency, gain in dB, octaves of Q."""
    return Band(kind, float(2 ** row[0]), float(row[1]), float(2 ** row[2]))


def _stated(
    curve_db: Floats, gain_db: float, bands: tuple[Band, ...], hz: Floats, rate: float
) -> Fit:
    """Bands in the figures that files hold, and what is left of the curve by those."""
    kept = tuple(
        Band(band.kind, round(band.hz, 1), round(band.gain_db, 2), round(band.q, 3))
        for band in sorted(bands, key=lambda band: band.hz)
    )
    gain = round(gain_db, 2)
    left = curve_db - gain - response_db(kept, hz, rate)
    return Fit(kept, gain, float(np.sqrt(np.square(left).mean())), float(np.abs(left).max()))
