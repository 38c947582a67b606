"""Slow twins of the package's formulas, in float64, written from their sources.

They use loops where the package uses matrix products, and plain sums where it calls a library.
Nothing of Tonewood is imported.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal, stats

Array = NDArray[np.float64]

# --- loudness and true peak: ITU-R BS.1770-4 ------------------------------------------------------

# Annex 1, tables 1 and 2: the two stages of K-weighting at 48 kHz.
SHELF = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285),
    (1.0, -1.69065929318241, 0.73248077421585),
)
HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))

# Annex 2, table of the 48-tap interpolator: two of its four phases, the others are their mirrors.
PHASES = (
    (0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875,
     0.1373291015625, 0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250,
     0.0148925781250, -0.0083007812500),
    (-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500,
     0.4650878906250, 0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625,
     0.0330810546875, -0.0189208984375),
)  # fmt: skip


def k_weighting_db(hz: Array) -> Array:
    """Response of both stages at 48 kHz, dB."""
    z = np.exp(2j * np.pi * hz / 48_000)
    total = np.ones(len(hz), complex)
    for b, a in (SHELF, HIGH_PASS):
        above = sum(c * z**-k for k, c in enumerate(b))
        total *= above / sum(c * z**-k for k, c in enumerate(a))
    return np.asarray(20 * np.log10(np.abs(total)))


def difference_equation(b: Array, a: Array, x: Array) -> Array:
    """Output of a recursive filter, sample by sample."""
    y = np.zeros(len(x))
    for n in range(len(x)):
        y[n] = sum(b[k] * x[n - k] for k in range(len(b)) if n >= k)
        y[n] -= sum(a[k] * y[n - k] for k in range(1, len(a)) if n >= k)
        y[n] /= a[0]
    return y


def loudness(wave: Array) -> float:
    """Gated loudness, LUFS, of (channels, samples) at 48 kHz that weigh alike; 0.4 s at least."""
    step, block = 4_800, 19_200
    power = []
    for channel in wave:
        weighted = signal.lfilter(*HIGH_PASS, signal.lfilter(*SHELF, channel))
        starts = range(0, len(weighted) - block + 1, step)
        power.append([np.mean(weighted[s : s + block] ** 2) for s in starts])
    blocks = [sum(each) for each in zip(*power, strict=True)]
    level = [-0.691 + 10 * np.log10(p) if p > 0 else -np.inf for p in blocks]
    selected = [p for p, lk in zip(blocks, level, strict=True) if lk > -70]
    gate = -0.691 + 10 * np.log10(np.mean(selected)) - 10
    selected = [p for p, lk in zip(blocks, level, strict=True) if lk > -70 and lk > gate]
    return float(-0.691 + 10 * np.log10(np.mean(selected)))


def true_peak_db(wave: Array) -> float:
    """Peak after the standard's own interpolator, dBTP, of (channels, samples)."""
    peak = 0.0
    for phase in (*PHASES, *(tuple(reversed(p)) for p in PHASES)):
        for channel in wave:
            peak = max(peak, np.abs(np.convolve(channel, phase)).max())
    return float(20 * np.log10(peak))


def band_limited_peak_db(wave: Array, times: int = 16) -> float:
    """Peak of a periodic wave [sample] between its samples: its Fourier series on a finer grid."""
    return float(20 * np.log10(np.abs(signal.resample(wave, times * len(wave))).max()))


# --- analysis: paper III; mel after O'Shaughnessy -------------------------------------------------


def hann(window: int) -> Array:
    """Periodic Hann window."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window))


def stft(wave: Array, window: int, hop: int, fft: int) -> NDArray[np.complex128]:
    """Spectrum [bin, frame] of frames around every hop, the ends mirrored; a full-scale sine is 1.

    By the Fourier sum itself.
    """
    padded = np.pad(wave, fft // 2, mode="reflect")
    lead = (fft - window) // 2
    taper = np.zeros(fft)
    taper[lead : lead + window] = hann(window)
    n = np.arange(fft)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), n) / fft)
    frames = [padded[k * hop : k * hop + fft] * taper for k in range(len(wave) // hop + 1)]
    return np.asarray(2 / taper.sum() * kernel @ np.array(frames).T)


def log_magnitude(spectrum: NDArray[np.complex128], floor_db: float) -> Array:
    """Magnitude in dB, no lower than the floor."""
    return np.asarray(np.maximum(20 * np.log10(np.abs(spectrum) + 1e-300), floor_db))


def mel(hz: float) -> float:
    """Mel of a frequency."""
    return float(2595 * np.log10(1 + hz / 700))


def hz_of(mels: float) -> float:
    """Frequency of a mel."""
    return float(700 * (10 ** (mels / 2595) - 1))


def mel_weights(count: int, low: float, high: float, bins: int, spacing: float) -> Array:
    """Triangles [row, bin] of height 1 between centres that are equally far apart in mel."""
    edges = [hz_of(mels) for mels in np.linspace(mel(low), mel(high), count + 2)]
    weights = np.zeros((count, bins))
    for row in range(count):
        a, b, c = edges[row : row + 3]
        for k in range(bins):
            hz = k * spacing
            if a < hz <= b:
                weights[row, k] = (hz - a) / (b - a)
            elif b < hz < c:
                weights[row, k] = (c - hz) / (c - b)
        if not weights[row].any():  # narrower than the spacing: the nearest bin
            weights[row, np.argmin(np.abs(np.arange(bins) * spacing - b))] = 1
    return weights


def row_levels(magnitude_db: Array, weights: Array) -> Array:
    """Power of the bins summed into rows [row, frame], dB."""
    return np.asarray(10 * np.log10(weights @ 10 ** (magnitude_db / 10)))


# --- the mask, and rendering ----------------------------------------------------------------------


class Grid(NamedTuple):
    """Gains [row, frame] in dB at rows' frequencies and every so many seconds, up to a top."""

    gain_db: Array
    hz: Array
    hop: float
    top: float


def gain_at(grid: Grid, hz: float, seconds: float) -> float:
    """Gain in dB at one point: linear in mel and time, ends held, gone an octave above the top."""
    frames = np.arange(grid.gain_db.shape[1]) * grid.hop
    now = [np.interp(seconds, frames, row) for row in grid.gain_db]
    gain = float(np.interp(mel(hz), [mel(row_hz) for row_hz in grid.hz], now))
    fade = 1.0 if hz <= grid.top else max(0.0, 1 - np.log2(hz / grid.top))
    return gain * fade


def filtered(wave: Array, rate: int, window: int, hop: int, fft: int, gain: Grid) -> Array:
    """exp(M) on the spectrum of every frame of a wave [sample], then overlap-add by Hann²."""
    padded = np.pad(wave, (fft, fft), mode="reflect")
    out, weight, taper = np.zeros(len(padded)), np.zeros(len(padded)), hann(window)
    hz = np.arange(fft // 2 + 1) * rate / fft
    frames = len(wave) // hop + 2
    for k in range(frames):
        start = fft + k * hop - (window + 1) // 2
        gains = np.array([gain_at(gain, f, k * hop / rate) for f in hz])
        spectrum = np.fft.rfft(padded[start : start + window] * taper, fft)
        output = np.fft.irfft(spectrum * 10 ** (gains / 20), fft)[:window]
        out[start : start + window] += output * taper
        weight[start : start + window] += taper**2
    return np.asarray((out / np.where(weight > 0, weight, 1))[fft : fft + len(wave)])


def smoothed(gain: Array, frames: int, rows: int) -> Array:
    """Mean over the nearest cells, an odd number each way, edges repeated."""
    output = np.zeros(gain.shape)
    r, f = (min(rows // 2, gain.shape[0] - 1), min(frames // 2, gain.shape[1] - 1))
    for i in range(gain.shape[0]):
        for j in range(gain.shape[1]):
            near = [
                gain[min(max(i + di, 0), gain.shape[0] - 1), min(max(j + dj, 0), gain.shape[1] - 1)]
                for di in range(-r, r + 1)
                for dj in range(-f, f + 1)
            ]
            output[i, j] = np.mean(near)
    return output


def roughness(gain: Array) -> float:
    """Mean step from frame to frame: the total variation along time, of a cell."""
    steps = [abs(row[j + 1] - row[j]) for row in gain for j in range(len(row) - 1)]
    return float(np.mean(steps))


def note(at: float, centre: float, extent: float, span: float) -> float:
    """Share of a window of length `span` about a point that a block covers; by counting points."""
    points = np.array([at]) if span == 0 else at + span * ((np.arange(20_000) + 0.5) / 20_000 - 0.5)
    return float(np.mean(np.abs(points - centre) <= extent / 2))


def notes(
    placed: list[tuple[float, float, float, float, float]],
    hz: Array,
    seconds: Array,
    smooth_hz: float,
    smooth_s: float,
) -> Array:
    """Mask of notes (second, Hz, width, height, gain): where they overlap, the mean gain."""
    output = np.zeros((len(hz), len(seconds)))
    for i, f in enumerate(hz):
        for j, t in enumerate(seconds):
            share = [note(f, c, h, smooth_hz) * note(t, s, w, smooth_s) for s, c, w, h, _ in placed]
            gains = [gain for *_, gain in placed]
            output[i, j] = sum(s * g for s, g in zip(share, gains, strict=True)) / max(1, sum(share))
    return output


def objective(score: float, energy: float, mask: Array, anchor: Array, weights: tuple[float, ...]) -> float:
    """s L_c + 2 alpha g L_g / cells + alpha mean (M - anchor)² + beta Var(M)."""
    s, g, alpha, beta = weights
    cells = mask.size
    distance = sum((m - a) ** 2 for m, a in zip(mask.flat, anchor.flat, strict=True)) / cells
    mean = sum(mask.flat) / cells
    variance = sum((m - mean) ** 2 for m in mask.flat) / cells
    return float(s * score + 2 * alpha * g * energy / cells + alpha * distance + beta * variance)


# --- the scorer -----------------------------------------------------------------------------------


class Network(NamedTuple):
    """Weights and biases of each convolution and of the linear layer, and the scorer's normalization."""

    convolutions: list[tuple[Array, Array]]
    strides: list[tuple[int, int]]
    linear: Array
    bias: float
    row_mean: Array
    row_hz: Array
    range_db: float


def feature_maps(network: Network, rows_db: Array) -> Array:
    """Last feature maps [channel, row', frame'] of one clip [row, frame] in dB.

    Levels are relative to the clip's own mean power, a pole at 60 Hz weighing low rows less.
    """
    hz = network.row_hz[:, None]
    level = 10 * np.log10((10 ** (rows_db / 10) * hz**2 / (hz**2 + 60**2)).sum(axis=0).mean())
    x = (np.maximum(rows_db - level, -network.range_db) - network.row_mean[:, None]) / 15
    maps: Array = x[None]
    for (weight, bias), (down, along) in zip(network.convolutions, network.strides, strict=True):
        reach = weight.shape[2] // 2
        padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        output = []
        for kernels, b in zip(weight, bias, strict=True):
            pairs = zip(padded, kernels, strict=True)
            total = sum(signal.correlate(m, k, "valid", "direct") for m, k in pairs) + b
            output.append((total / (1 + np.exp(-total)))[::down, ::along])
        maps = np.array(output)
    return maps


def activation_map(network: Network, rows_db: Array) -> Array:
    """Class activation map [row', frame']: its mean plus the bias is the logit."""
    maps: Array = np.einsum("c,crf->rf", network.linear, feature_maps(network, rows_db))
    return maps


def score(network: Network, rows_db: Array) -> float:
    """Score of one clip."""
    logit = activation_map(network, rows_db).mean() + network.bias
    return float(1 / (1 + np.exp(-logit)))


# --- listeners; folders without pairs ---------------------------------------------------------------


def median_interval(values: Array) -> tuple[float, float]:
    """95 % interval of a median by interpolated order statistics (Hettmansperger & Sheather)."""
    n, x = len(values), sorted(values)

    def confidence(k: int) -> float:
        return 1 - 2 * sum(float(stats.binom.pmf(i, n, 0.5)) for i in range(k))

    k = max(depth for depth in range(1, n) if confidence(depth) >= 0.95)
    part = (confidence(k) - 0.95) / (confidence(k) - confidence(k + 1))
    weight = (n - k) * part / (k + (n - 2 * k) * part)
    return (
        (1 - weight) * x[k - 1] + weight * x[k],
        (1 - weight) * x[n - k] + weight * x[n - k - 1],
    )


def penalised(theta: Array, wins: Array) -> float:
    """Bradley & Terry's log likelihood with Jeffreys' prior, up to a constant."""
    gap = theta[:, None] - theta[None, :]
    weight = (wins + wins.T) / (2 + np.exp(gap) + np.exp(-gap))
    information = np.diag(weight.sum(axis=1)) - weight
    size = np.linalg.slogdet(information[1:, 1:])[1]
    return float(-(wins * np.log1p(np.exp(-gap))).sum() + size / 2)


def strengths(wins: Array) -> Array:
    """Strengths [item] with sum 0 that maximize `penalised`."""
    count = len(wins)
    start, close = np.zeros(count - 1), {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000}
    result = optimize.minimize(
        lambda free: -penalised(np.append(free, -free.sum()), wins),
        start, method="Nelder-Mead", options=close,
    )  # fmt: skip
    return np.append(result.x, -result.x.sum())


def strength_end(wins: Array, item: int, side: float) -> float:
    """End of a strength's 95 % interval by the profile of the penalised likelihood; three items."""
    theta = strengths(wins)
    limit = penalised(theta, wins) - stats.chi2.ppf(0.95, 1) / 2
    first, second = (other for other in range(3) if other != item)
    close = {"xatol": 1e-9}

    def profile(value: float) -> float:
        def at(gap: float) -> float:
            trial = np.zeros(3)
            trial[item], trial[first], trial[second] = value, -value / 2 + gap, -value / 2 - gap
            return -penalised(trial, wins)

        return float(-optimize.minimize_scalar(at, bounds=(-15, 15), options=close).fun - limit)

    return float(optimize.brentq(profile, theta[item], theta[item] + side * 12))


def frechet(spreads_a: Array, spreads_b: Array, shift: Array) -> float:
    """Fréchet distance of Gaussians with the same axes, `shift` apart, with these spreads along them."""
    return float(np.square(shift).sum() + np.square(spreads_a - spreads_b).sum())


# --- parametric equalisers: Audio EQ Cookbook -----------------------------------------------------


def biquad(kind: str, hz: float, gain_db: float, q: float, rate: float) -> tuple[Array, Array]:
    """Coefficients b, a as the cookbook prints them."""
    A = 10 ** (gain_db / 40)  # noqa: N806
    w0 = 2 * np.pi * hz / rate
    c, alpha = np.cos(w0), np.sin(w0) / (2 * q)
    r = 2 * np.sqrt(A) * alpha
    if kind == "peaking":
        b = [1 + alpha * A, -2 * c, 1 - alpha * A]
        a = [1 + alpha / A, -2 * c, 1 - alpha / A]
    elif kind == "low_shelf":
        b = [A * (A + 1 - (A - 1) * c + r), 2 * A * (A - 1 - (A + 1) * c), 0.0]
        b[2] = A * (A + 1 - (A - 1) * c - r)
        a = [A + 1 + (A - 1) * c + r, -2 * (A - 1 + (A + 1) * c), A + 1 + (A - 1) * c - r]
    else:
        b = [A * (A + 1 + (A - 1) * c + r), -2 * A * (A - 1 + (A + 1) * c), 0.0]
        b[2] = A * (A + 1 + (A - 1) * c - r)
        a = [A + 1 - (A - 1) * c + r, 2 * (A - 1 - (A + 1) * c), A + 1 - (A - 1) * c - r]
    return np.array(b), np.array(a)
