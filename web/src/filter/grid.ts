/** Grid of a mask and its filter, as the server describes them. */

import type { Link } from "../api";

export interface Grid {
  found: number | null;
  row_hz: number[];
  fine_hz: number[]; // rows of a mask with notes or areas
  curve_hz: number[]; // the same, with a curve
  fine_curve_hz: number[];
  link: Link;
  mean_db: number[][]; // of each component's rows over time
  top_hz: number; // above it, gains fade to 0 dB over an octave
  hop_s: number;
  frames: number;
  chunk_frames: number;
  step_db: number; // of the stored gains
  max_gain_db: number;
  edge_hz: number; // longest ramps of notes and areas
  edge_s: number;
  window: number; // samples of the recording
  hop: number;
  fft: number;
}

/** What the filter needs to know of a recording. */
export interface Recording {
  rate: number;
  channels: number;
  samples: number;
}

export const mel = (hz: number): number => 2595 * Math.log10(1 + hz / 700);

export const fadeAbove = (hz: number, top_hz: number): number => Math.max(0, Math.min(1, 1 - Math.log2(Math.max(hz, top_hz) / top_hz)));

/** Interpolates rows at rising frequencies, linearly in mel, as `Mask.gain_at` does. */
export class Interpolation {
  private low: Int32Array;
  private share: Float64Array; // of the row above
  private fade: Float64Array;

  constructor(
    readonly hz: number[],
    top_hz: number,
    at: number[],
  ) {
    const rows = hz.map(mel);
    this.low = new Int32Array(at.length);
    this.share = new Float64Array(at.length);
    this.fade = Float64Array.from(at, (it) => fadeAbove(it, top_hz));
    let row = 0;
    at.forEach((it, n) => {
      while (row < rows.length - 2 && rows[row + 1] <= mel(it)) row++;
      const step = row + 1 < rows.length ? rows[row + 1] - rows[row] : 0;
      this.low[n] = row;
      this.share[n] = step ? Math.max(0, Math.min(1, (mel(it) - rows[row]) / step)) : 0;
    });
  }

  /** Returns the gain at a frequency. */
  at(n: number, rows: Float64Array): number {
    const low = this.low[n];
    const share = this.share[n];
    return (share ? rows[low] * (1 - share) + rows[low + 1] * share : rows[low]) * this.fade[n];
  }

  /** Returns the gains at all frequencies. */
  all(rows: Float64Array): Float64Array {
    return this.fade.map((_, n) => this.at(n, rows));
  }
}
