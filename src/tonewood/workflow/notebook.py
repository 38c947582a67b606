"""Results as HTML for notebooks: a player, a spectrogram, the mask, the score along time."""

import base64
import io
from html import escape

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from tonewood.files.audio import resample
from tonewood.settings import SpectrumSettings
from tonewood.signal import image
from tonewood.signal.spectrum import log_magnitude, stft

MAX_EMBEDDED_SECONDS = 20.0
"""Longer sound is not embedded: a notebook would grow by megabytes."""

_WIDTH, _HEIGHT = 600, 90


def audio_player_html(samples: NDArray[np.float32], rate: int) -> str:
    """HTML of a player with samples (channels, samples) in it as 16-bit wav, if they are short."""
    seconds = samples.shape[1] / rate
    if seconds > MAX_EMBEDDED_SECONDS:
        return (
            f"<p>{seconds:.0f} s of sound; up to {MAX_EMBEDDED_SECONDS:.0f} s are embedded: write it to a "
            "file to listen</p>"
        )
    stream = io.BytesIO()
    soundfile.write(stream, samples.T, rate, format="WAV", subtype="PCM_16")
    source = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<audio controls src="data:audio/wav;base64,{source}"></audio>'


def spectrogram_html(samples: NDArray[np.float32], rate: int, spectrum: SpectrumSettings) -> str:
    """HTML of a spectrogram of samples (channels, samples), by a model's analysis."""
    mono = samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    wave = torch.from_numpy(resample(mono, rate, spectrum.rate))
    level = log_magnitude(stft(wave, spectrum), spectrum).numpy()
    seconds = samples.shape[1] / rate
    caption = f"output: 0 to {spectrum.rate / 2:.0f} Hz, {seconds:.1f} s; 80 dB down to black"
    return image.html_figure(image.levels_image(level), caption)


def score_curve_html(values: tuple[float, ...]) -> str:
    """HTML of scores along time, 1 on top, as a line."""
    count = max(len(values) - 1, 1)
    points = " ".join(
        f"{_WIDTH * i / count:.1f},{_HEIGHT * (1 - value):.1f}" for i, value in enumerate(values)
    )
    if len(values) == 1:  # a single window is as long as the line
        points += f" {_WIDTH},{_HEIGHT * (1 - values[0]):.1f}"
    return (
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 8}" width="{_WIDTH}" height="{_HEIGHT + 8}" '
        'role="img" aria-label="score along time"><path fill="none" stroke="#ccc" '
        f'd="M0 0H{_WIDTH}M0 {_HEIGHT}H{_WIDTH}"/><polyline fill="none" stroke="#b2182b" '
        f'stroke-width="2" points="{points}"/></svg>'
    )


def table_html(rows: list[tuple[str, str]]) -> str:
    """HTML of names and what is said of them; all of it is taken for text."""
    lines = (
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<table>{''.join(lines)}</table>"
