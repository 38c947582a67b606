"""One recording of a training folder → all that is known of it, in pieces of bounded size.

A recording is run through twice at least, and never held: what is measured against the whole of it
(its rests, its peak, its largest power on a pitch) is known after the first run.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tonewood.files.audio import Resampler, mono_of
from tonewood.files.cache import Fresh
from tonewood.files.formats import AudioFormat
from tonewood.files.items import Decoded, Item
from tonewood.files.recording import Samples
from tonewood.files.spool import Spool
from tonewood.scoring.audit import long_term
from tonewood.settings import Fix, ModelSettings
from tonewood.signal.bands import centres_hz
from tonewood.signal.blocks import Piece, Regrouped
from tonewood.signal.features import LONG_HOPS, PITCHES, REACH_FRAMES, analysed, unveiled
from tonewood.signal.remedies import fixed_blocks
from tonewood.signal.traces import Traces, Tracing
from tonewood.signal.tracks import PART_FRAMES, spans

_PIECE_FRAMES = 2048  # even, so that long frames fall on it too

Hear = Callable[[Samples], None]
"""Takes the next samples (channels, samples) of a recording."""


class Known(NamedTuple):
    """Digest of a recording's samples, and its traces."""

    digest: str
    traces: Traces


class Mended:
    """A recording with a fix applied, whenever it is run through.

    Parameters
    ----------
    before : Decoded
    known : Known
        Of the recording as it is.
    fix : Fix
    """

    def __init__(self, before: Decoded, known: Known, fix: Fix) -> None:
        self._before, self._known, self._fix = before, known, fix
        self.rate, self.channels = before.rate, before.channels

    def blocks(self) -> Iterator[Samples]:
        """All of it, (channels, samples) at a time."""
        # Drawn by the recording itself: its noise depends neither on its neighbours nor on its
        # side, and is the same in every run.
        rng = np.random.default_rng(int(self._known.digest[:16], 16))
        traces = self._known.traces
        length = round(traces.seconds * self.rate)
        return fixed_blocks(self._before.blocks(), length, self.rate, traces, self._fix, rng)


def opened(item: Item, fix: Fix | None = None) -> Decoded | Mended:
    """A recording, or the piece of one that a list names, with its fix applied.

    Raises
    ------
    AudioError
        It cannot be used.
    """
    plain = Decoded(item)
    return plain if fix is None else Mended(plain, known_of(plain), fix)


def known_of(sound: Decoded | Mended, hear: Hear | None = None, digest: str | None = None) -> Known:
    """Run through a recording: its digest, unless that is known, and its traces.

    Parameters
    ----------
    hear : callable, optional
        Is given all blocks once.
    digest : str, optional
        SHA-256 of the samples, one channel after the other: a copy in another container is the
        same recording.
    """
    hasher, channels = hashlib.sha256(), sound.channels

    def run(channel: int) -> Iterator[Samples]:
        """All blocks, a channel of them told on the way."""
        for block in sound.blocks():
            if digest is None and channel < channels:
                hasher.update(np.ascontiguousarray(block[channel]).data)
            yield block

    tracing = Tracing(sound.rate, channels)
    for block in run(0):
        tracing.push(block)
        if hear is not None:
            hear(block)
    again = tracing.again()
    for block in run(1):
        again.push(block)
    for channel in range(2, channels if digest is None else 2):
        for _ in run(channel):
            pass
    return Known(digest or hasher.hexdigest(), again.traces())


def studied(
    item: Item, settings: ModelSettings, fix: Fix | None, folder: Path | None = None
) -> Fresh:
    """Decode and analyse a recording, its fix applied first.

    Parameters
    ----------
    folder : Path, optional
        On whose disk its analysis is kept meanwhile.
    """
    plain = Decoded(item)
    analysing = Analysing(plain.rate, settings, folder)
    if fix is None:
        known = known_of(plain, analysing.push)
    else:
        before = known_of(plain)
        known = known_of(Mended(plain, before, fix), analysing.push, before.digest)
    return analysing.fresh(known, plain.format)


def witnessed(item: Item, settings: ModelSettings) -> Fresh:
    """What an audit asks of a recording; its pitches are of no interest."""
    sound = Decoded(item)
    analysing = Analysing(sound.rate, settings, pitched=False)
    return analysing.fresh(known_of(sound, analysing.push), sound.format)


class Analysing:
    """Rows and fine structure of a recording while it passes.

    Parameters
    ----------
    rate : int
        Of what is pushed, Hz.
    settings : ModelSettings
    folder : Path, optional
        On whose disk they are kept.
    pitched : bool
        Whether fine structure is of interest.
    """

    def __init__(
        self,
        rate: int,
        settings: ModelSettings,
        folder: Path | None = None,
        *,
        pitched: bool = True,
    ) -> None:
        self._settings, self._folder, self._pitched = settings, folder, pitched
        self._bands, self._spectrum = settings.scorer.bands, settings.spectrum
        self._rows = Spool(len(centres_hz(self._bands, self._spectrum)), folder)
        self._power, self._loudest = Spool(PITCHES, folder), 0.0
        self._resampler = Resampler(rate, self._spectrum.rate)
        hop = self._spectrum.hop
        self._pieces = Regrouped(_PIECE_FRAMES * hop, REACH_FRAMES * hop)

    def push(self, block: Samples) -> None:
        """Hear more samples (channels, samples)."""
        self._listen(self._pieces.push(self._resampler.push(mono_of(block))))

    def fresh(self, known: Known, form: AudioFormat) -> Fresh:
        """All that was found; nothing can be pushed after it."""
        self._listen(self._pieces.push(self._resampler.rest()))
        self._listen(self._pieces.rest())
        window = self._spectrum.frames(self._settings.scorer.crop_seconds)
        return Fresh(
            digest=known.digest,
            seconds=known.traces.seconds,
            format=form,
            traces=known.traces,
            spectra=long_term(self._rows, window),
            rows_db=self._rows,
            long_db=self._unveiled(),
        )

    def _listen(self, pieces: Iterator[Piece[Samples]]) -> None:
        for piece in pieces:
            rows, power = analysed(piece, self._bands, self._spectrum, pitched=self._pitched)
            self._rows.append(rows)
            if power.shape[1]:
                self._power.append(power)
                self._loudest = max(self._loudest, float(power.max()))

    def _unveiled(self) -> Spool:
        """Fine structure at every long frame of the rows."""
        fine = Spool(PITCHES, self._folder)
        if not self._pitched:
            return fine
        # A margin, since the last long frame may be missing, and then is the one before it.
        for span in spans(self._rows.frames, PART_FRAMES, LONG_HOPS):
            power = self._power.part(span.begin // LONG_HOPS, -(-span.end // LONG_HOPS))
            made = unveiled(power, self._loudest, span.end - span.begin)
            fine.append(made[:, span.inner][:, ::LONG_HOPS])
        return fine
