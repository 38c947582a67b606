/** Ranges of samples of a recording that have arrived. */

import type { Recording } from "./grid";

interface Range {
  start: number;
  channels: Float32Array[];
}

export class Samples {
  private ranges = new Map<number, Range>();

  constructor(readonly recording: Recording) {}

  put(id: number, range: Range): void {
    this.ranges.set(id, range);
  }

  drop(id: number): void {
    this.ranges.delete(id);
  }

  /** Copies samples from `start` on; beyond the ends the recording is mirrored. What is missing is silent. */
  read(channel: number, start: number, target: Float64Array, length: number): void {
    const { samples } = this.recording;
    target.fill(0, 0, length);
    const first = Math.max(0, start);
    const last = Math.min(samples, start + length);
    for (let at = first; at < last; ) {
      const found = this.covering(at);
      if (!found) {
        at++;
        continue;
      }
      const { start: from, channels } = found;
      const stop = Math.min(last, from + channels[channel].length);
      for (; at < stop; at++) target[at - start] = channels[channel][at - from];
    }
    // Shorter recordings are not mirrored by the renderer either.
    if (samples <= length) return;
    for (let n = 0; n < Math.min(length, -start); n++) target[n] = this.at(channel, -(start + n));
    for (let n = Math.max(0, samples - start); n < length; n++) target[n] = this.at(channel, 2 * (samples - 1) - start - n);
  }

  private at(channel: number, sample: number): number {
    const found = this.covering(sample);
    return found ? found.channels[channel][sample - found.start] : 0;
  }

  private covering(sample: number): Range | null {
    for (const range of this.ranges.values()) {
      if (range.start <= sample && sample < range.start + range.channels[0].length) return range;
    }
    return null;
  }
}
