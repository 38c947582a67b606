/** Grid of a mask and its filter, as the server describes them. */

export interface Grid {
  found: number | null;
  row_hz: number[];
  fine_hz: number[]; // rows of a mask with notes or areas
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

/** Interpolates rows at the bins of an FFT, linearly in mel, as `Mask.gain_at` does. */
export class BinWeights {
  private low: Int32Array;
  private share: Float64Array; // of the row above
  private fade: Float64Array;

  constructor(
    readonly hz: number[],
    top_hz: number,
    { fft }: Grid,
    rate: number,
  ) {
    const bins = fft / 2 + 1;
    const rows = hz.map(mel);
    this.low = new Int32Array(bins);
    this.share = new Float64Array(bins);
    this.fade = new Float64Array(bins);
    for (let bin = 0, row = 0; bin < bins; bin++) {
      const at = (bin * rate) / fft;
      while (row < rows.length - 2 && rows[row + 1] <= mel(at)) row++;
      const next = Math.min(row + 1, rows.length - 1);
      this.low[bin] = row;
      this.share[bin] = next === row ? 0 : Math.max(0, Math.min(1, (mel(at) - rows[row]) / (rows[next] - rows[row])));
      this.fade[bin] = fadeAbove(at, top_hz);
    }
  }

  /** Returns the gain of a bin. */
  at(bin: number, rows: Float64Array): number {
    const low = this.low[bin];
    const share = this.share[bin];
    return (share ? rows[low] * (1 - share) + rows[low + 1] * share : rows[low]) * this.fade[bin];
  }
}
