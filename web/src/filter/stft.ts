/**
 * Filters a recording through the mask of an edit, at any sample and without delay.
 *
 * It is the filter of the renderer (`tonewood.dsp.stft`): the same periodic Hann windows, hop, length of the
 * FFT, bins and interpolated gains. Only the precision differs: double here, single there. Two channels are the
 * real and the imaginary part of one transform.
 */

import { Fft } from "./fft";
import { Interpolation, type Grid } from "./grid";
import type { EditedMask } from "./mask";
import type { Samples } from "./samples";

const NEPERS_PER_DB = Math.log(10) / 20;
const KEPT = 24; // two positions are filtered at once, each with four frames

/** The values of the last keys. A new one is written over the oldest, so that nothing is collected while playing. */
class Recent<T> {
  private values = new Map<number, T>();

  constructor(private made: () => T) {}

  /** Returns the value of a key, which `fill` writes if it is not here. */
  get(key: number, fill: (value: T) => void): T {
    let value = this.values.get(key);
    if (value !== undefined) return value;
    const oldest = this.values.size < KEPT ? undefined : (this.values.keys().next().value as number);
    value = oldest === undefined ? this.made() : (this.values.get(oldest) as T);
    if (oldest !== undefined) this.values.delete(oldest);
    fill(value);
    this.values.set(key, value);
    return value;
  }
}

/** Spectra of pairs of channels. */
interface Spectrum {
  re: Float64Array;
  im: Float64Array;
}

/** Windows of a recording and their spectra. All masks share them. */
export class Analysis {
  readonly before: number; // samples of a window before its frame's centre
  readonly hann: Float64Array;
  readonly fft: Fft;
  readonly frames: number;
  private spectra: Recent<Spectrum[]>;
  private weights: Interpolation[] = [];
  private bins: number[]; // their frequencies

  constructor(
    readonly samples: Samples,
    readonly grid: Grid,
  ) {
    const { window, hop, fft } = grid;
    this.before = fft / 2 - Math.floor((fft - window) / 2);
    this.hann = Float64Array.from({ length: window }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / window));
    this.fft = new Fft(fft);
    this.bins = Array.from({ length: fft / 2 + 1 }, (_, bin) => (bin * samples.recording.rate) / fft);
    this.frames = Math.floor(samples.recording.samples / hop) + 2;
    this.spectra = new Recent(() => this.blank());
  }

  /** Returns the spectra of a frame. */
  spectrum(frame: number): Spectrum[] {
    return this.spectra.get(frame, (spectra) => this.transform(frame, spectra));
  }

  /** Returns the weights of a mask's rows at the bins. */
  weightsOf({ hz, top_hz }: EditedMask): Interpolation {
    let weights = this.weights.find((known) => known.hz === hz);
    if (!weights) this.weights.push((weights = new Interpolation(hz, top_hz, this.bins)));
    return weights;
  }

  /** Returns room for the spectra, or the filtered windows, of a frame. */
  blank(): Spectrum[] {
    const { fft } = this.grid;
    const pairs = Math.ceil(this.samples.recording.channels / 2);
    return Array.from({ length: pairs }, () => ({ re: new Float64Array(fft), im: new Float64Array(fft) }));
  }

  private transform(frame: number, spectra: Spectrum[]): void {
    const { window, hop } = this.grid;
    const { channels } = this.samples.recording;
    const start = frame * hop - this.before;
    spectra.forEach(({ re, im }, pair) => {
      [re, im].forEach((part, n) => {
        part.fill(0);
        if (2 * pair + n >= channels) return;
        this.samples.read(2 * pair + n, start, part, window);
        for (let at = 0; at < window; at++) part[at] *= this.hann[at];
      });
      this.fft.transform(re, im);
    });
  }
}

export class Filter {
  private weights: Interpolation;
  private factors: Float64Array[]; // of every bin, of each component
  private frames: Recent<Spectrum[]>;
  private blocks: Recent<Float64Array[]>;
  private weight: Float64Array;

  constructor(
    private analysis: Analysis,
    private masks: EditedMask[], // of each component
    private amount: number,
  ) {
    const { grid, samples } = analysis;
    const { channels } = samples.recording;
    this.weights = analysis.weightsOf(masks[0]);
    this.factors = masks.map(() => new Float64Array(grid.fft / 2 + 1));
    this.weight = new Float64Array(grid.hop);
    this.frames = new Recent(() => analysis.blank());
    this.blocks = new Recent(() => Array.from({ length: channels }, () => new Float64Array(grid.hop)));
  }

  /** Writes samples [start, start + length) of all channels to `targets`, from `offset` on. */
  read(start: number, length: number, targets: Float32Array[], offset: number): void {
    const { hop } = this.analysis.grid;
    for (let done = 0; done < length; ) {
      const number = Math.floor((start + done) / hop);
      const from = start + done - number * hop;
      const count = Math.min(length - done, hop - from);
      const block = this.blocks.get(number, (sums) => this.overlap(number, sums));
      targets.forEach((target, channel) => {
        const source = block[Math.min(channel, block.length - 1)];
        for (let n = 0; n < count; n++) target[offset + done + n] = source[from + n];
      });
      done += count;
    }
  }

  /** Adds the windows that overlap one hop of samples, of all channels. */
  private overlap(number: number, sums: Float64Array[]): void {
    const { analysis, weight } = this;
    const { window, hop } = analysis.grid;
    const start = number * hop;
    weight.fill(0);
    for (const sum of sums) sum.fill(0);
    const first = Math.max(0, Math.ceil((start - window + analysis.before + 1) / hop));
    const last = Math.min(analysis.frames - 1, Math.floor((start + hop - 1 + analysis.before) / hop));
    for (let frame = first; frame <= last; frame++) {
      const at = start - (frame * hop - analysis.before); // place of the hop in the window
      const waves = this.frames.get(frame, (room) => this.filter(frame, room));
      const [begin, end] = [Math.max(0, -at), Math.min(hop, window - at)];
      for (let n = begin; n < end; n++) weight[n] += analysis.hann[at + n] ** 2;
      sums.forEach((sum, channel) => {
        const wave = channel % 2 ? waves[channel >> 1].im : waves[channel >> 1].re;
        for (let n = begin; n < end; n++) sum[n] += wave[at + n] * analysis.hann[at + n];
      });
    }
    for (const sum of sums) for (let n = 0; n < hop; n++) sum[n] /= Math.max(weight[n], 1e-12);
  }

  /**
   * Filters the window of a frame.
   *
   * The spectrum of a pair is z = l + i r, and z' = l - i r is the conjugate of its mirror. Gains g and h of
   * l and r, or of mid and side, make ((g + h) z + (g - h) z') / 2, or ((g + h) z + i (g - h) z') / 2 of it.
   */
  private filter(frame: number, waves: Spectrum[]): void {
    const { grid, fft } = this.analysis;
    const length = grid.fft;
    const turned = grid.link === "mid-side";
    this.masks.forEach((mask, n) => this.gains(frame, mask, this.factors[n]));
    this.analysis.spectrum(frame).forEach(({ re, im }, pair) => {
      const wave = waves[pair];
      const [first, second] = this.factorsOf(pair);
      for (let bin = 0; bin < length; bin++) {
        const at = Math.min(bin, length - bin);
        const own = (first[at] + second[at]) / (2 * length);
        const other = (first[at] - second[at]) / (2 * length);
        const mirror = bin ? length - bin : 0;
        wave.re[bin] = re[bin] * own + (turned ? im[mirror] : re[mirror]) * other;
        wave.im[bin] = im[bin] * own + (turned ? re[mirror] : -im[mirror]) * other;
      }
      fft.transform(wave.im, wave.re);
    });
  }

  /** Returns the factors of the two components in a pair of channels. */
  private factorsOf(pair: number): [Float64Array, Float64Array] {
    const last = this.factors.length - 1;
    const own = last ? 2 * pair : 0; // else one mask for all channels
    return [this.factors[own], this.factors[Math.min(own + 1, last)]];
  }

  /** Computes the factor of every bin at the time of a frame, linearly between the mask's frames. */
  private gains(frame: number, mask: EditedMask, factors: Float64Array): void {
    const { grid, samples } = this.analysis;
    const column = Math.max(0, Math.min(grid.frames - 1, (frame * grid.hop) / samples.recording.rate / grid.hop_s));
    const left = Math.floor(column);
    const share = column - left;
    const before = mask.column(left);
    const after = share ? mask.column(left + 1) : before;
    const rows = share ? before.map((gain, row) => gain * (1 - share) + after[row] * share) : before;
    for (let bin = 0; bin < factors.length; bin++) {
      factors[bin] = Math.exp(this.weights.at(bin, rows) * this.amount * NEPERS_PER_DB);
    }
  }
}
