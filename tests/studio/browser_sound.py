"""Helpers of the browser tests: what a page plays."""

import base64
import json
from typing import Any

import numpy as np

from tests.studio.browser_page import wait_until

# Records what is heard, and what is scheduled when, on the audio clock.
TAP = """
registerProcessor("tap", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage([currentFrame, input[0].slice()]);
    return true;
  }
});
"""
RECORD = (
    f"const TAP = {json.dumps(TAP)};"
    + """
window.heard = [];
window.pieces = [];
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (...to) {
  if (to[0] instanceof AudioDestinationNode) {
    to[0].context.audioWorklet.addModule("data:text/javascript," + encodeURIComponent(TAP)).then(() => {
      const tap = new AudioWorkletNode(to[0].context, "tap", { numberOfOutputs: 0 });
      tap.port.onmessage = ({ data }) => heard.push(data);
      connect.call(this, tap);
    });
  }
  return connect.apply(this, to);
};
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  const { sampleRate } = this.buffer;
  const samples = this.buffer.getChannelData(0).subarray(Math.round(offset * sampleRate));
  pieces.push([Math.round(when * sampleRate), samples.length, Array.from(samples.subarray(0, 64))]);
  return start.call(this, when, offset);
};
"""
)
HEARD = """() => {
  const first = heard[0][0];
  const samples = new Float32Array(heard.at(-1)[0] + 128 - first);
  for (const [frame, block] of heard) samples.set(block, frame - first);
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let n = 0; n < bytes.length; n += 8192) text += String.fromCharCode(...bytes.subarray(n, n + 8192));
  return [first, btoa(text)];
}"""


class Recorder:
    """What a page plays of a recording's first channel."""

    def __init__(self, page: Any, recording: np.ndarray) -> None:
        self.page, self.recording = page, recording
        page.context.add_init_script(RECORD)

    def frame(self) -> int:
        """Return the frame of the audio clock up to which sound was recorded; 0 before."""
        frame: int = self.page.evaluate("heard.length ? heard.at(-1)[0] : 0")
        return frame

    def wait_for(self, seconds: float) -> tuple[int, int]:
        """Wait for a stretch of sound and return its first and last frame."""
        begin = self.frame()
        end = begin + int(seconds * 44_100)
        wait_until(self.page, lambda: self.frame() > end)
        return begin, end

    def played(self, begin: int, end: int) -> list[tuple[int, np.ndarray]]:
        """Return what was heard between two frames: runs of samples, each with its place in the recording."""
        (first, text), pieces = self.page.evaluate(HEARD), self.page.evaluate("pieces")
        samples = np.frombuffer(base64.b64decode(text), np.float32)
        runs = []
        for number, (frame, length, piece) in enumerate(pieces):
            # Pieces that are scheduled later replace this one from their start on.
            later = min((start for start, *_ in pieces[number + 1 :] if start > frame), default=end)
            left, right = max(begin, frame), min(end, frame + length, later)
            place = self._place(np.array(piece, np.float32)) if left < right else None
            if place is not None:
                runs.append((place + left - frame, samples[left - first : right - first]))
        return runs

    def _place(self, piece: np.ndarray) -> int | None:
        """Return the sample at which a piece of the input begins; None for a piece of the output."""
        for place in np.flatnonzero(self.recording == piece[0]).tolist():
            if np.array_equal(self.recording[place : place + len(piece)], piece):
                return int(place)
        return None


def residual_db(played: np.ndarray, expected: np.ndarray) -> float:
    """Return the level of what differs from what is expected, but for a gain."""
    difference = played - gain_of(played, expected) * expected
    return 10 * float(np.log10(np.mean(difference**2) / np.mean(expected**2) + 1e-20))


def is_about_one(gain: float, within_db: float = 1.0) -> bool:
    """Return whether a gain is about 0 dB; silence is not."""
    return 10 ** (-within_db / 20) < gain < 10 ** (within_db / 20)


def gain_of(played: np.ndarray, expected: np.ndarray) -> float:
    """Return the gain of what was played."""
    return float(np.dot(played, expected) / np.dot(expected, expected))


def plays(recorder: Recorder, expected: np.ndarray, gain_db: float = 0.001) -> bool:
    """Return whether half a second is the expected sound. A busy machine may leave gaps in it."""
    runs = recorder.played(*recorder.wait_for(0.5))
    pairs = [(run, expected[place : place + len(run)]) for place, run in runs]
    # The same windows and gains: what differs is the renderer's single precision (-115 dB).
    return bool(pairs) and all(
        residual_db(run, part) < -90 and is_about_one(gain_of(run, part), gain_db) for run, part in pairs
    )
