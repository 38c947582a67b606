"""Enhance audio block by block, 40 ms late."""

from collections import deque

import numpy as np

from tonewood.audio_io.reader import MAX_CHANNELS, MAX_RATE
from tonewood.audio_io.recording import to_float_samples, to_whole_rate
from tonewood.dsp.features import apply_filterbank, center_frequencies
from tonewood.dsp.loudness import PeakLimiter
from tonewood.dsp.stft import FrameBuffer, FrameLayout, OverlapAddFilter, count_filter_frames, scale_to_rate
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.errors import AudioError, CallError
from tonewood.mask.components import shape_gains
from tonewood.mask.mask import Mask
from tonewood.mask.render import LoudnessFollower
from tonewood.model.model import Model
from tonewood.priors.predictor import LOUDNESS_AMOUNTS, StreamState
from tonewood.settings import AspectSettings, RenderSettings, ShapeSettings
from tonewood.utils.arrays import FloatArray, Samples, to_mono

_MAX_SAMPLE_VALUE = 1e3  # 60 dB above full scale: a fault, not audio


class StreamingEnhancer:
    """Enhance audio that arrives in blocks, with the model's predictor.

    The output lags by `latency` samples and does not depend on the sizes of the blocks. Before level
    and ceiling it equals the output of `enhance --method predicted --no-match` to -90 dB and better.

    - The latency is half a window until a frame can be analysed (15 ms), the predictor's lookahead of
      one hop (10 ms), and half a window until no later frame reaches a sample (15 ms): 40 ms less one
      sample. Buffers of devices and drivers add to it.
    - The gain that matches the level starts at the value learnt from the source folder and within some
      seconds follows what the masks add (`LoudnessFollower`). A fixed gain would leave recordings
      unlike that folder too loud or too soft by some dB. It depends on the masks and not on the
      loudness of the music, so it does not pump.
    - The ceiling limits samples, without lookahead (`PeakLimiter`).

    Parameters
    ----------
    model : Model
        Must have a predictor.
    rate : int
        Hz; at least the analysis rate.
    channels : int
    settings : RenderSettings
        Amount, shape, largest gain, and whether level and peak are controlled. Smoothing over time
        would need later audio, so a stream has none.

    Attributes
    ----------
    frozen : bool
        Hold the mask of the present moment.
    plays_delta : bool
        Return output minus input: what is added and taken away.

    Raises
    ------
    ModelError
        The model has no predictor.
    CallError
        The rate or the number of channels is out of range, or a setting does not apply to streams.

    Examples
    --------
    >>> import numpy as np, tonewood
    >>> stream = tonewood.Stream("cello", rate=48_000, channels=2)
    >>> stream.latency
    1919
    >>> stream.push(np.zeros((2, 300), dtype=np.float32))
    >>> stream.pull().shape
    (2, 300)
    >>> stream.flush().shape
    (2, 1919)
    """

    def __init__(
        self,
        model: Model,
        rate: int,
        channels: int = 1,
        settings: RenderSettings = RenderSettings(),  # noqa: B008 - frozen
    ) -> None:
        spectrum, bands = model.settings.spectrum, model.settings.scorer.bands
        rate = to_whole_rate(rate, 1, MAX_RATE)
        if rate < spectrum.rate:
            raise CallError(
                f"the stream's rate is {rate} Hz; it goes from {spectrum.rate} to {MAX_RATE} Hz: set the "
                "device to 48000, or enhance a file"
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise CallError(
                f"the stream has {channels} channels; 1 to {MAX_CHANNELS} are possible: use fewer"
            )
        if settings.aspect != AspectSettings() or settings.gain_db:
            raise CallError(
                "render.aspect and render.gain_db do not apply to a stream: leave them out, or enhance a file"
            )
        if settings.link != "all" or settings.curve.points:
            raise CallError("render.link and render.curve do not apply to a stream: leave them out")
        if settings.shape.smooth_seconds:
            raise CallError(
                "render.shape.smooth_seconds needs later audio, which a stream has not: leave it out, or "
                "enhance a file"
            )
        low_hz = settings.shape.low_hz
        if low_hz is not None and low_hz >= rate / 2:
            raise CallError(
                f"render.shape.low_hz is {low_hz:g}; a stream at {rate} Hz has frequencies up to "
                f"{rate / 2:g} Hz: give a lower limit"
            )
        self.rate, self.channels = rate, channels
        self._predictor, self._spectrum, self._bands = require_predictor(model), spectrum, bands
        self._lookahead = self._predictor.settings.lookahead
        self._settings = settings
        self.frozen = False
        self.plays_delta = False
        window, hop, length = scale_to_rate(spectrum, rate)
        self._layout = FrameLayout(window, hop, length)
        self._hz = center_frequencies(bands, spectrum)
        self._taper = self._layout.hann_window() * (4 / window)  # scaled as `stft` scales it
        self.reset()

    def reset(self) -> None:
        """Forget all input; amount, freeze and delta stay."""
        window, hop, _ = self._layout
        rows = len(self._hz)
        self._mono = FrameBuffer(1, self._layout)
        self._filter = OverlapAddFilter(self.channels, window, hop, self.rate)
        # The mask is linear in its rows: frame k of this one, with row k alone at 1 dB, gives the
        # weights of row k on the filter's bins.
        unit = Mask(np.eye(rows, dtype=np.float32), self._hz, 1.0, self._spectrum.rate / 2)
        self._weights = unit.gain_at(self._filter.hz, np.arange(rows, dtype=np.float64))
        self._state: StreamState = self._predictor.initial_state()
        # The oldest row belongs to the frame that is filtered next, the newest is the lookahead.
        self._rows: deque[FloatArray] = deque(maxlen=self._lookahead + 1)
        self._mask: FloatArray = np.zeros(rows, dtype=np.float32)
        # The learnt start is that of whole masks; of shaped ones nothing is known.
        is_whole = self._settings.shape == ShapeSettings()
        self._follower = LoudnessFollower(
            self._hz,
            self._predictor.weights["loudness_db"] * is_whole,
            LOUDNESS_AMOUNTS,
            self._predictor.settings.level_seconds,
            hop / self.rate,
        )
        self._limiter = PeakLimiter(self._settings.ceiling_dbtp, self.rate)
        self._n_pushed = self._n_analysed = self._n_filtered = self._n_pulled = 0
        # As much silence as the latency, so that as many samples can be pulled as were pushed.
        self._output: list[Samples] = [np.zeros((self.channels, self.latency), dtype=np.float32)]
        self._ended = False

    @property
    def latency(self) -> int:
        """Delay of the output, samples."""
        lookahead = self._lookahead * self._layout.hop
        return self._layout.samples_after + lookahead + self._filter.layout.samples_before - 1

    @property
    def amount(self) -> float:
        """Factor of the mask, -1 to 2; may change at any time, without a click."""
        return self._settings.amount

    @amount.setter
    def amount(self, amount: float) -> None:
        self._settings = self._settings.replace(amount=amount)

    def push(self, block: Samples) -> None:
        """Add a block (channels, samples) of any length.

        Raises
        ------
        CallError
            The block has another shape, or the stream was flushed.
        AudioError
            The block has NaN, infinite or very large values. It is skipped; the stream can go on.
        """
        block = to_float_samples(block)
        if self._ended:
            raise CallError("the stream was flushed: call reset() before push()")
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise CallError(
                f"the block has shape {block.shape}; this stream needs ({self.channels}, samples)"
            )
        if not np.isfinite(block).all():
            raise AudioError("the block has NaN or infinite values: repair it first")
        if (loudest := float(np.abs(block).max(initial=0.0))) > _MAX_SAMPLE_VALUE:
            raise AudioError(
                f"the block has samples of {loudest:.2g}; full scale is 1 and the limit "
                f"{_MAX_SAMPLE_VALUE:g}: repair it first"
            )
        self._n_pushed += block.shape[1]
        self._mono.append(to_mono(block)[None])
        self._filter.buffer.append(block)
        # A predicted frame is filtered at once, so the filter's buffer must hold it too.
        while self._mono.is_complete(self._n_analysed) and self._filter.buffer.is_complete(
            max(0, self._n_analysed - self._lookahead)
        ):
            self._analyse()

    def pull(self, count: int | None = None) -> Samples:
        """Return `count` samples (channels, count), or all that are available.

        As many samples are available as were pushed; the first `latency` are silence.

        Raises
        ------
        CallError
            `count` is larger than the number of available samples.
        """
        available = self._n_pushed + self.latency * self._ended - self._n_pulled
        count = available if count is None else count
        if not 0 <= count <= available:
            raise CallError(f"count is {count}; {available} samples are available: push more first")
        output = np.concatenate(self._output, axis=1)
        self._output = [output[:, count:]]
        self._n_pulled += count
        return output[:, :count]

    def flush(self) -> Samples:
        """End the stream and return the rest (channels, samples), at least `latency` samples."""
        if not self._ended:
            self._finish()
        self._ended = True
        return self.pull()

    def process(self, block: Samples) -> Samples:
        """Push a block and pull one of the same length."""
        self.push(block)
        return self.pull(np.shape(block)[1])

    def _finish(self) -> None:
        """Process the remaining frames, mirroring the input at its end as at its start."""
        if self._n_pushed == 0:
            return
        for buffer in (self._mono, self._filter.buffer):
            buffer.mirror_end()
        analysed = self._layout.count_frames(self._n_pushed)
        frames = count_filter_frames(self._n_pushed, self._layout.hop)
        while self._n_analysed < analysed:
            self._analyse()
        while self._n_filtered < min(analysed, frames):
            self._predict(self._rows[-1])  # the lookahead repeats the last frame
        while self._n_filtered < frames:
            self._filter_frame()  # the filter has more frames than the analysis
        self._emit(*self._filter.flush(self._n_filtered - 1, self._n_pushed))

    def _analyse(self) -> None:
        """Analyse the next frame, and filter the frame that the predictor now has the lookahead for."""
        windowed = self._mono.frame(self._n_analysed)[0] * self._taper
        self._n_analysed += 1
        self._mono.discard_before(self._n_analysed * self._layout.hop - self._layout.samples_before)
        power = np.square(np.abs(np.fft.rfft(windowed, self._layout.fft)[: self._spectrum.bins]))
        level = 10 * np.log10(np.maximum(power, 10 ** (self._spectrum.floor_db / 10)))
        magnitude = level.astype(np.float32)[:, None]
        self._predict(apply_filterbank(magnitude, self._bands, self._spectrum)[:, 0])

    def _predict(self, rows_db: FloatArray) -> None:
        prediction, self._state = self._predictor(rows_db[None, :, None], self._state)
        self._rows.append(rows_db)
        if len(self._rows) < self._lookahead + 1:
            return
        if not self.frozen:
            # Clipped and quantized as the mask of a file, whose output the stream equals.
            mask = Mask(prediction.mask_db[0], self._hz, 1.0, self._spectrum.rate / 2)
            self._mask = mask.clip(self._settings.max_gain_db).quantize().gain_db[:, 0]
        self._filter_frame()

    def _filter_frame(self) -> None:
        mask_db = shape_gains(self._mask[:, None], self._hz, self._settings.shape, self.amount)[:, 0]
        gain = self._weights @ (mask_db * np.float32(self.amount))
        # The mask at amount 1: the amount may change at any time.
        self._follower.update(self._rows[0], mask_db)
        if self._settings.match:
            gain = gain + self._follower.gain_db(self.amount)
        output, before = self._filter.process_frame(self._n_filtered, gain)
        self._n_filtered += 1
        self._emit(output, before)

    def _emit(self, output: Samples, before: Samples) -> None:
        if output.shape[1]:
            limited = self._limiter.process(output, before) if self._settings.match else output
            self._output.append(limited - before if self.plays_delta else limited)
