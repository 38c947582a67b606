"""Rows that bound the others: no change, the best possible mask, the reference itself."""

from quality.bench import Bench, Fitted, Output, Row, render_mask
from quality.corpus import Piece, mel_rows
from tonewood.audio_io.reader import read_recording
from tonewood.mask.mask import moving_average
from tonewood.settings import ModelSettings

_SMOOTH_S = 0.09


def untouched(bench: Bench) -> Fitted:
    return Fitted(lambda piece: Output(piece.samples, piece.rate))


def best_mask(bench: Bench) -> Fitted:
    """Return the mask from the true reference: the difference of levels, at Tonewood's resolution."""

    def enhance(piece: Piece) -> Output:
        difference = mel_rows(piece.target) - mel_rows(piece.before)
        return render_mask(piece, moving_average(difference, ModelSettings().spectrum.to_frames(_SMOOTH_S)))

    return Fitted(enhance, note="knows the answer: mel rows, averaged over 90 ms")


def reference(bench: Bench) -> Fitted:
    def enhance(piece: Piece) -> Output:
        recording = read_recording(piece.target_path)
        return Output(recording.samples, recording.rate)

    return Fitted(enhance, note="the paired reference takes themselves")


UNTOUCHED = Row("untouched", "untouched", untouched)
BEST_MASK = Row("best-mask", "mask from the known answer, smoothed", best_mask)
REFERENCE = Row("reference", "reference takes", reference)
