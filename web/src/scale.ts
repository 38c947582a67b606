/** Converts times and frequencies to positions on the picture. */

import type { Axes } from "./api";

export type AxisName = "log" | "mel";

const toMel = (hz: number) => 2595 * Math.log10(1 + hz / 700);
const fromMel = (mel: number) => 700 * (10 ** (mel / 2595) - 1);
const LEAST_SHARE = 0.08; // the most that the frequencies can be zoomed

export class Scale {
  start = 0;
  end = 1;
  width = 1;
  height = 1;
  axis: AxisName = "log";
  // The visible part of the frequency axis: shares of the whole, from its lowest (0) to its highest row (1).
  bottom = 0;
  top = 1;

  constructor(
    private axes: Axes,
    readonly duration: number,
  ) {
    this.end = Math.max(duration, 0.1);
  }

  x(seconds: number): number {
    return ((seconds - this.start) / (this.end - this.start)) * this.width;
  }

  seconds(x: number): number {
    return this.start + (x / this.width) * (this.end - this.start);
  }

  y(hz: number): number {
    return ((this.top - this.share(hz)) / (this.top - this.bottom)) * this.height;
  }

  /** Returns the position of a frequency between the lowest (0) and the highest row (1) of all. */
  share(hz: number): number {
    const { low_hz: low, high_hz: high } = this.axes;
    const at = Math.max(hz, 1);
    if (this.axis === "log") return Math.log(at / low) / Math.log(high / low);
    return (toMel(at) - toMel(low)) / (toMel(high) - toMel(low));
  }

  hz(y: number): number {
    return this.frequency(this.top - (y / this.height) * (this.top - this.bottom));
  }

  /** Returns the frequency at a share of all rows. */
  frequency(share: number): number {
    const { low_hz: low, high_hz: high } = this.axes;
    if (this.axis === "log") return low * (high / low) ** share;
    return fromMel(toMel(low) + share * (toMel(high) - toMel(low)));
  }

  /** Returns whether a frequency is visible. */
  shows(hz: number): boolean {
    const share = this.share(hz);
    return share >= this.bottom - 1e-6 && share <= this.top + 1e-6;
  }

  get low(): number {
    return this.axes.low_hz;
  }

  get high(): number {
    return this.axes.high_hz;
  }

  /** Whether all frequencies are visible. */
  get whole(): boolean {
    return this.bottom === 0 && this.top === 1;
  }

  /** Returns the frequencies that get a label. */
  ticks(): number[] {
    const log = [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
    const fine = [60, 80, 150, 300, 400, 600, 700, 800, 900, 1200, 1500, 3000, 4000, 6000, 8000, 15000];
    const mel = [100, 500, 1000, 2000, 3000, 4000, 6000, 8000, 10000, 15000, 20000];
    const told: number[] = [];
    for (const hz of [...(this.axis === "log" ? log : mel), ...(this.whole ? [] : fine)]) {
      if (!this.shows(hz)) continue;
      if (told.some((other) => Math.abs(this.y(hz) - this.y(other)) < 22)) continue;
      told.push(hz);
    }
    return told;
  }

  /** Returns the times that get a label, and their number of digits. */
  times(): { step: number; at: number[] } {
    const span = this.end - this.start;
    const wish = span / Math.max(2, this.width / 90);
    const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800];
    const step = steps.find((candidate) => candidate >= wish) ?? 3600;
    const at: number[] = [];
    for (let t = Math.ceil(this.start / step) * step; t <= this.end; t += step) at.push(t);
    return { step, at };
  }

  zoom(factor: number, around: number): void {
    const least = Math.min(0.25, this.duration);
    const span = Math.min(this.duration, Math.max(least, (this.end - this.start) * factor));
    const share = (around - this.start) / (this.end - this.start);
    this.move(around - share * span, span);
  }

  move(start: number, span = this.end - this.start): void {
    this.start = Math.max(0, Math.min(start, this.duration - span));
    this.end = this.start + span;
  }

  /** Zooms the frequencies around a height in pixels. */
  zoomFrequencies(factor: number, y = this.height / 2): void {
    const at = 1 - y / this.height;
    const around = this.bottom + at * (this.top - this.bottom);
    const span = Math.min(1, Math.max(LEAST_SHARE, (this.top - this.bottom) * factor));
    this.moveFrequencies(around - at * span, span);
  }

  moveFrequencies(bottom: number, span = this.top - this.bottom): void {
    this.bottom = Math.max(0, Math.min(bottom, 1 - span));
    this.top = this.bottom + span;
    if (span > 1 - 1e-9) [this.bottom, this.top] = [0, 1];
  }
}
