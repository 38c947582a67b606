"""Sound goes in and comes out reshaped, block by block, 40 ms later."""

from collections import deque

import numpy as np
import torch
from scipy import fft

from tonewood.audio_io.reader import MAX_CHANNELS, MAX_RATE
from tonewood.audio_io.recording import to_mono
from tonewood.dsp.filterbank import apply_filterbank, center_frequencies
from tonewood.dsp.loudness import PeakLimiter
from tonewood.dsp.stft import FrameBuffer, FrameLayout, OverlapAddFilter, count_filter_frames, scale_to_rate
from tonewood.enhancement.prior_mask import require_predictor
from tonewood.errors import AudioError, CallError
from tonewood.mask.mask import Mask
from tonewood.mask.render import LoudnessFollower
from tonewood.model.model import Model
from tonewood.priors.predictor import LOUDNESS_AMOUNTS, StreamState
from tonewood.settings import AspectSettings, RenderSettings
from tonewood.utils.arrays import FloatArray, Samples

_MAX_SAMPLE_VALUE = 1e3  # 60 dB beyond full scale is no sound


class StreamingEnhancer:
    """A recording, or a performance, that comes and goes in blocks.

    What comes out is what went in `latency` samples before, reshaped by the model's predictor; the
    blocks' borders leave no trace. It is what `enhance --method predicted --no-match` makes of a
    file, to -90 dB and better, and then level and ceiling, as far as they can be had without
    knowing what comes:

    - The latency is half a window until a frame can be analysed (15 ms), as many hops as the
      predictor looks ahead (one: 10 ms), and half a window until no later frame reaches a sample
      (15 ms): 40 ms less one sample, whatever the blocks. What devices and drivers hold comes on
      top.
    - The level is followed, not fixed: a gain learnt from the source folder starts, and in some
      seconds gives way to what the masks were heard to add, `LoudnessFollower`. A gain that stayed as
      learnt would leave recordings unlike that folder louder or softer by some dB for good. It
      follows what the masks do and not how loud the music is, so it does not pump.
    - The ceiling holds samples, and needs no lookahead, `PeakLimiter`.

    Parameters
    ----------
    model : Model
        One with a predictor.
    rate : int
        Hz; at least the analysis rate.
    channels : int
    settings : RenderSettings
        Amount, bounds, and whether level and peak are held at all.

    Raises
    ------
    ModelError
        The model has no predictor.
    CallError
        The rate or the number of channels is out of range, or a setting is not a stream's.

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
        if not spectrum.rate <= rate <= MAX_RATE:
            raise CallError(
                f"a stream has {rate} Hz; {spectrum.rate} to {MAX_RATE} Hz can be used: set the "
                "device to 48000, or enhance a file"
            )
        if not 1 <= channels <= MAX_CHANNELS:
            raise CallError(
                f"a stream has {channels} channels; 1 to {MAX_CHANNELS} can be used: choose fewer"
            )
        if settings.aspect != AspectSettings() or settings.gain_db:
            raise CallError(
                "a stream takes a mask as a whole and gives no fixed gain: leave render.aspect "
                "and render.gain_db, or enhance a file"
            )
        self.rate, self.channels = rate, channels
        self._predictor, self._spectrum, self._bands = require_predictor(model), spectrum, bands
        self._ahead = self._predictor.settings.lookahead
        self._settings = settings
        window, hop, length = scale_to_rate(spectrum, rate)
        self._framing = FrameLayout(window, hop, length)
        self._hz = center_frequencies(bands, spectrum)
        self._taper = self._framing.hann_window() * (4 / window)  # as `spectrum.stft`
        self.reset()

    def reset(self) -> None:
        """Begin anew, as if nothing had been heard; the amount stays."""
        window, hop, _ = self._framing
        rows = len(self._hz)
        self._mono = FrameBuffer(1, self._framing)
        self._filter = OverlapAddFilter(self.channels, window, hop, self.rate)
        # A mask whose frames are its rows, each alone at 1 dB, says what each row's gain counts.
        unit = Mask(np.eye(rows, dtype=np.float32), self._hz, 1.0, self._spectrum.rate / 2)
        self._weights = unit.gain_at(self._filter.hz, np.arange(rows, dtype=np.float64))
        self._memory: StreamState = self._predictor.initial_state()
        self._rows: deque[FloatArray] = deque(maxlen=self._ahead + 1)
        self._mask: FloatArray = np.zeros(rows, dtype=np.float32)
        self._follower = LoudnessFollower(
            self._hz,
            self._predictor.loudness_db.numpy(),
            LOUDNESS_AMOUNTS,
            self._predictor.settings.level_seconds,
            hop / self.rate,
        )
        self._ceiling = PeakLimiter(self._settings.ceiling_dbtp, self.rate)
        self._heard = self._analysed = self._filtered = self._pulled = 0
        self._made: list[Samples] = [np.zeros((self.channels, self.latency), dtype=np.float32)]
        self._ended = False

    @property
    def latency(self) -> int:
        """Samples by which the output lags."""
        ahead = self._ahead * self._framing.hop
        return self._framing.samples_after + ahead + self._filter.layout.samples_before - 1

    @property
    def amount(self) -> float:
        """How much of the mask is applied, 0 to 1; may change at any time, without a click."""
        return self._settings.amount

    @amount.setter
    def amount(self, amount: float) -> None:
        self._settings = self._settings.replace(amount=amount)

    def push(self, block: Samples) -> None:
        """Give a block (channels, samples) of any length.

        Raises
        ------
        CallError
            It has another shape, or the stream was flushed.
        AudioError
            It holds values that are none, infinite or absurd; it is left out, and the stream goes
            on.
        """
        block = np.asarray(block, dtype=np.float32)
        if self._ended:
            raise CallError("the stream was flushed: reset it before pushing more")
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise CallError(
                f"the block has shape {block.shape}; this stream takes ({self.channels}, samples)"
            )
        if not np.isfinite(block).all():
            raise AudioError("the block holds NaN or infinite values: repair it first")
        if (loudest := float(np.abs(block).max(initial=0.0))) > _MAX_SAMPLE_VALUE:
            raise AudioError(
                f"the block has samples of {loudest:.2g}; full scale is 1, {_MAX_SAMPLE_VALUE:g} can be "
                "used: repair it first"
            )
        self._heard += block.shape[1]
        self._mono.append(to_mono(block)[None])
        self._filter.buffer.append(block)
        while self._mono.is_complete(self._analysed) and self._filter.buffer.is_complete(
            max(0, self._analysed - self._ahead)
        ):
            self._analyse()

    def pull(self, count: int | None = None) -> Samples:
        """Take samples (channels, count): all that are due, or so many of them.

        As many are due as were pushed; the first `latency` are silence.

        Raises
        ------
        CallError
            More are asked for than are due.
        """
        due = self._heard + self.latency * self._ended - self._pulled
        wanted = due if count is None else count
        if not 0 <= wanted <= due:
            raise CallError(f"{wanted} samples are asked for; {due} are due: push more first")
        made = np.concatenate(self._made, axis=1)
        self._made = [made[:, wanted:]]
        self._pulled += wanted
        return made[:, :wanted]

    def flush(self) -> Samples:
        """End the stream; returns all that is left (channels, samples), `latency` at the least."""
        if not self._ended:
            self._finish()
        self._ended = True
        return self.pull()

    def process(self, block: Samples) -> Samples:
        """Push a block and pull one of the same length."""
        self.push(block)
        return self.pull(np.shape(block)[1])

    def _finish(self) -> None:
        """Hear nothing more: what was mirrored at the beginning is mirrored at the end."""
        if self._heard == 0:
            return
        for past in (self._mono, self._filter.buffer):
            past.mirror_end()
        analysed = self._framing.count_frames(self._heard)
        frames = count_filter_frames(self._heard, self._framing.hop)
        while self._analysed < analysed:
            self._analyse()
        while self._filtered < min(analysed, frames):
            self._predict(self._rows[-1])  # nothing is heard after the last frame but itself
        while self._filtered < frames:
            self._filter_frame()  # the last mask holds
        self._emit(*self._filter.flush(self._filtered - 1, self._heard))

    def _analyse(self) -> None:
        """Hear the next frame, and filter the one that the predictor now knows enough of."""
        piece = self._mono.frame(self._analysed)[0] * self._taper
        self._analysed += 1
        self._mono.discard_before(self._analysed * self._framing.hop - self._framing.samples_before)
        power = np.square(np.abs(fft.rfft(piece, self._framing.fft)[: self._spectrum.bins]))
        level = 10 * np.log10(np.maximum(power, 10 ** (self._spectrum.floor_db / 10)))
        magnitude = torch.from_numpy(level.astype(np.float32))[:, None]
        self._predict(apply_filterbank(magnitude, self._bands, self._spectrum)[:, 0].numpy())

    def _predict(self, rows_db: FloatArray) -> None:
        with torch.no_grad():
            heard = torch.from_numpy(rows_db)[None, :, None]
            foreseen, self._memory = self._predictor(heard, self._memory)
        self._rows.append(rows_db)
        if len(self._rows) < self._ahead + 1:
            return
        mask = Mask(foreseen.mask_db[0].numpy(), self._hz, 1.0, self._spectrum.rate / 2)
        self._mask = mask.clip(self._settings.max_gain_db).quantize().gain_db[:, 0]
        self._filter_frame()

    def _filter_frame(self) -> None:
        gain = self._weights @ (self._mask * np.float32(self.amount))
        self._follower.update(self._rows[0], self._mask)
        if self._settings.match:
            gain = gain + self._follower.gain_db(self.amount)
        made, before = self._filter.process_frame(self._filtered, gain)
        self._filtered += 1
        self._emit(made, before)

    def _emit(self, made: Samples, before: Samples) -> None:
        if made.shape[1]:
            held = self._ceiling.process(made, before) if self._settings.match else made
            self._made.append(held)
