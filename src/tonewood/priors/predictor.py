"""Networks that predict a mask: the mask network from pseudo-pairs, and the causal predictor.

The mask network maps a recording's features to the mask that it still needs. The predictor serves files
and streams in one pass, since its convolutions look back only. How both are trained: `network_training`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tonewood.dsp.features import frame_levels
from tonewood.priors.nearest_neighbours import PriorFeatures
from tonewood.settings import NetworkSettings, PredictorSettings
from tonewood.utils.arrays import Array, Levels, namespace
from tonewood.utils.layers import Network, apply_dropout, check_shapes, convolve, gelu, pad_frames

if TYPE_CHECKING:
    from torch import Generator

LOUDNESS_AMOUNTS = (0.5, 1.0)  # at which `loudness_db` of a predictor is measured
FEATURE_SCALE_DB = 10.0  # brings the inputs of the mask network to about unit spread
# Factors that bring gains, and the inputs of the predictor, to about unit spread.
_GAIN_SCALE_DB, _LEVEL_SCALE_DB = 8.0, 15.0
_RANGE_DB = 75.0
# As `activity_from_level`, relative to the running level instead of the loudest frame.
_INACTIVE_DB, _FADE_DB = 55.0, 15.0
_CHUNK_FRAMES = 4_096  # bounds the exponents of `relative_levels`


class MaskNetwork(Network):
    """Residual convolutions over frames, from features [row + component] to gains [row].

    Parameters
    ----------
    settings : NetworkSettings
    weights : dict of Array
        Named and shaped as in `mask_network_shapes`; KeyError or ValueError if not.
    """

    constants = frozenset({"row_mean", "fine_scale"})

    def __init__(self, settings: NetworkSettings, weights: Mapping[str, Any]) -> None:
        super().__init__(weights)
        self.settings = settings
        rows, inputs = len(self.weights["row_mean"]), self.weights["first.weight"].shape[1]
        check_shapes(self.weights, mask_network_shapes(rows, inputs - rows, settings))

    def __call__(self, inputs: Array, generator: "Generator | None" = None) -> Array:
        """Return gains [batch, row, frame] in dB relative to the static mask; a generator enables dropout."""
        dropout = self.settings.dropout
        hidden = gelu(self._convolve("first", inputs))
        for number in range(2):
            hidden = hidden + gelu(
                self._convolve(f"middle.{number}", apply_dropout(hidden, dropout, generator))
            )
        gain: Array = self._convolve("last", apply_dropout(hidden, dropout, generator)) * _GAIN_SCALE_DB
        return gain

    def inputs(self, take: PriorFeatures) -> NDArray[np.float32]:
        """Return the network's input [row + component, frame]."""
        rows = (take.rows_db - self.weights["row_mean"][:, None]) / np.float32(FEATURE_SCALE_DB)
        return np.concatenate([rows, take.fine / self.weights["fine_scale"]])

    def predict_gain(self, take: PriorFeatures) -> Levels:
        """Return the gain [row, frame] in dB relative to the static mask."""
        gain: Levels = self(self.inputs(take)[None])[0]
        return gain

    def _convolve(self, name: str, x: Array) -> Array:
        weight = self.weights[f"{name}.weight"]
        half = weight.shape[-1] // 2
        sums: Array = convolve(pad_frames(x, half, half), weight, self.weights[f"{name}.bias"])
        return sums


def mask_network_shapes(rows: int, components: int, settings: NetworkSettings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a mask network."""
    width, kernel = settings.width, settings.kernel
    layers = {
        "first": (width, rows + components, 1),
        "middle.0": (width, width, kernel),
        "middle.1": (width, width, kernel),
        "last": (rows, width, 1),
    }
    return {"row_mean": (rows,), "fine_scale": ()} | _layer_shapes(layers)


def _layer_shapes(kernels: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in kernels.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


class StreamState(NamedTuple):
    """State of a predictor between two chunks."""

    sums: Any  # float64 [batch, 2]: leaky sums of squared power and of power over the frames so far
    past: tuple[Any, ...]  # [batch, channel, frame]: last inputs of each convolution


class Prediction(NamedTuple):
    """Predicted result of a search [..., row, frame] in dB, and its difference from the prior."""

    mask_db: Levels
    departure_db: Levels


class Predictor(Network):
    """Causal network from levels to a mask, `settings.lookahead` frames later.

    Parameters
    ----------
    settings : PredictorSettings
    hop_ms : float
        Time from frame to frame.
    weights : dict of Array
        Named and shaped as in `predictor_shapes`; KeyError or ValueError if not. `loudness_db` is the mean
        loudness that masks add to source takes at `LOUDNESS_AMOUNTS`.
    """

    constants = frozenset({"row_mean", "static_db", "loudness_db"})

    def __init__(self, settings: PredictorSettings, hop_ms: float, weights: Mapping[str, Any]) -> None:
        super().__init__(weights)
        self.settings = settings
        check_shapes(self.weights, predictor_shapes(len(self.weights["row_mean"]), settings))
        # Per frame; e^-decay_rate of the sums is left after one.
        self.decay_rate = hop_ms / (1000 * settings.level_seconds)

    def initial_state(self) -> StreamState:
        """Return the state before the first frame of one recording."""
        return StreamState(np.zeros((1, 2)), self.initial_past(1))

    def initial_past(self, batch: int) -> tuple[NDArray[np.float32], ...]:
        """Return the inputs of each convolution before the first frame."""
        settings = self.settings
        # A causal convolution with dilation 2^i looks back (kernel - 1) · 2^i frames.
        return tuple(
            np.zeros((batch, settings.width, (settings.kernel - 1) * 2**i), dtype=np.float32)
            for i in range(settings.depth)
        )

    def __call__(self, rows_db: Array, state: StreamState) -> tuple[Prediction, StreamState]:
        """Predict from levels [batch, row, frame] in dB; the result lags by `lookahead` frames.

        The returned state belongs to the next frames.
        """
        relative, sums = self.relative_levels(rows_db, state.sums)
        gain, past = self.network_gain(relative, state.past)
        # Silence gives nothing to adapt to, and background noise must not be modulated.
        activity = ((frame_levels(relative) + _INACTIVE_DB) / _FADE_DB).clip(0, 1)
        both: Any = activity[:, None] * gain
        mask, departure = both[:, : rows_db.shape[1]], both[:, rows_db.shape[1] :]
        return Prediction(self.weights["static_db"][:, None] + mask, departure), StreamState(sums, past)

    def predict(self, rows_db: Levels) -> Prediction:
        """Predict for a whole recording [row, frame] in dB."""
        chunks = (rows_db[:, k : k + _CHUNK_FRAMES] for k in range(0, rows_db.shape[1], _CHUNK_FRAMES))
        parts = zip(*self.predict_chunks(chunks), strict=True)
        return Prediction(*(np.concatenate(part, axis=1) for part in parts))

    def predict_chunks(self, chunks: Iterable[Levels]) -> Iterator[Prediction]:
        """Predict along a recording in chunks [row, frame] in dB, each much shorter than an hour.

        The last frame is repeated at the end, to make up for the lookahead.
        """
        state, skip, last = self.initial_state(), self.settings.lookahead, None
        for chunk in chunks:
            last = chunk[:, -1:]
            prediction, state = self._predict_chunk(chunk, state)
            yield Prediction(*(values[:, skip:] for values in prediction))
            skip = max(0, skip - chunk.shape[1])  # the first `lookahead` results precede the recording
        if last is not None and self.settings.lookahead:
            repeated = np.repeat(last, self.settings.lookahead, axis=1)
            prediction, _ = self._predict_chunk(repeated, state)
            yield Prediction(*(values[:, skip:] for values in prediction))

    def _predict_chunk(self, rows_db: Levels, state: StreamState) -> tuple[Prediction, StreamState]:
        prediction, state = self(rows_db[None], state)
        return Prediction(*(values[0] for values in prediction)), state

    def relative_levels(self, rows_db: Array, sums: Array) -> tuple[Array, Array]:
        """Return levels [batch, row, frame] relative to the running level, dB, and the updated sums.

        The running level is a leaky mean of the power, weighted by the power itself: pauses do not
        lower it, and the first sound after silence sets it at once.
        """
        xp = namespace(rows_db)
        power = 10 ** (frame_levels(xp.asarray(rows_db, dtype=xp.float64)) / 10)
        age = self.decay_rate * xp.ones_like(power[0]).cumsum(0)
        # s(t) = Σ e^(u - t) x(u) = e^-t (s(0) + Σ e^u x(u)); chunks keep the exponents small.
        powers = xp.stack([power**2, power], 1) * xp.exp(age)
        leaky = (sums[:, :, None] + powers.cumsum(2)) * xp.exp(-age)
        level = 10 * xp.log10(leaky[:, 0] / leaky[:, 1])
        relative = (rows_db - xp.asarray(level[:, None], dtype=rows_db.dtype)).clip(-_RANGE_DB)
        return relative, leaky[:, :, -1]

    def network_gain(
        self, relative_db: Array, past: tuple[Any, ...], generator: "Generator | None" = None
    ) -> tuple[Array, tuple[Array, ...]]:
        """Return gain and departure [batch, 2 row, frame] in dB, and the convolutions' next past.

        The gain is relative to the static mask. A generator enables dropout.
        """
        weights, dropout = self.weights, self.settings.dropout
        scaled = (relative_db - weights["row_mean"][:, None]) / _LEVEL_SCALE_DB
        hidden = gelu(convolve(scaled, weights["first.weight"], weights["first.bias"]))
        next_past = []
        for number, before in enumerate(past):
            dropped = apply_dropout(hidden, dropout, generator)
            inputs = namespace(hidden).concatenate([before, dropped], 2)
            next_past.append(inputs[:, :, inputs.shape[2] - before.shape[2] :])
            weight, bias = (weights[f"middle.{number}.{part}"] for part in ("weight", "bias"))
            hidden = hidden + gelu(convolve(inputs, weight, bias, dilation=2**number))
        dropped = apply_dropout(hidden, dropout, generator)
        gain: Array = convolve(dropped, weights["last.weight"], weights["last.bias"]) * _GAIN_SCALE_DB
        return gain, tuple(next_past)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all values by name, to be stored; weights in half precision."""
        return {k: v if k in self.constants else v.astype(np.float16) for k, v in self.weights.items()}

    @classmethod
    def from_tensors(
        cls, named: Mapping[str, NDArray[Any]], settings: PredictorSettings, hop_ms: float
    ) -> Self:
        """Undo `tensors`; KeyError or ValueError if they do not match the settings."""
        return cls(settings, hop_ms, {k: v.astype(np.float32) for k, v in named.items()})


def predictor_shapes(rows: int, settings: PredictorSettings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a predictor."""
    width, kernel = settings.width, settings.kernel
    layers = {"first": (width, rows, 1)}
    layers |= {f"middle.{number}": (width, width, kernel) for number in range(settings.depth)}
    layers["last"] = (2 * rows, width, 1)  # mask, departure
    constants = {"row_mean": (rows,), "static_db": (rows,), "loudness_db": (len(LOUDNESS_AMOUNTS),)}
    return constants | _layer_shapes(layers)
