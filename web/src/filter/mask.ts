/** The mask of an edit, composed frame by frame as `tonewood.enhancement.editing` does. */

import type { Area, Edit, Note } from "../api";
import { Interpolation, type Grid } from "./grid";

/** Found mask, chunk by chunk: steps [frame, row]. */
export class FoundMask {
  private chunks = new Map<number, Int16Array>();

  constructor(
    readonly grid: Grid,
    public mean_db: number[],
  ) {}

  put(number: number, steps: Int16Array): void {
    this.chunks.set(number, steps);
  }

  drop(number: number): void {
    this.chunks.delete(number);
  }

  /** Adds the gains of a frame in steps to `sum`; frames that are not here are 0 dB. */
  add(frame: number, sum: Float64Array): void {
    const { chunk_frames } = this.grid;
    const steps = this.chunks.get(Math.floor(frame / chunk_frames));
    if (!steps) return;
    const from = (frame % chunk_frames) * sum.length;
    for (let row = 0; row < sum.length; row++) sum[row] += steps[from + row];
  }
}

/** A block of gain or of amount: its share of every row, and its span of time. */
interface Block {
  rows: Float64Array;
  seconds: number;
  half_s: number;
  ramp_s: number;
  value: number;
}

/** The share of a window of length `span` around a point that a block covers. */
function coverage(distance: number, half: number, span: number): number {
  const covered = Math.min(half, distance + span / 2) - Math.max(-half, distance - span / 2);
  return Math.max(0, Math.min(1, covered / span));
}

export class EditedMask {
  readonly hz: number[];
  readonly top_hz: number;
  private columns = new Map<number, Float64Array>();
  private half: number; // frames of smoothing on either side
  private computed: boolean; // not the found mask itself
  private curved: { rows: Interpolation; gains: Float64Array } | null = null;
  private fine: Interpolation | null = null;
  private notes: Block[];
  private areas: Block[];
  private keepsNegative: boolean;

  /** `weights` [row, row] smooth the mask over frequency and limit it; null if the shape does not. */
  constructor(
    private found: FoundMask,
    private edit: Edit,
    private weights: Float64Array | null,
  ) {
    const { grid } = found;
    const notes = edit.notes.filter((note) => !note.muted);
    const { curve } = edit;
    let hz = grid.row_hz;
    let top_hz = grid.top_hz;
    if (curve) {
      this.curved = { rows: new Interpolation(hz, top_hz, grid.curve_hz), gains: curveGains(curve.points, grid.curve_hz) };
      hz = grid.curve_hz;
      top_hz = Math.max(top_hz, hz[hz.length - 1]);
    }
    if (notes.length + edit.areas.length > 0) {
      const fine_hz = curve ? grid.fine_curve_hz : grid.fine_hz;
      this.fine = new Interpolation(hz, top_hz, fine_hz);
      hz = fine_hz;
      top_hz = Math.max(top_hz, hz[hz.length - 1]);
    }
    [this.hz, this.top_hz] = [hz, top_hz];
    this.computed = edit.shape !== undefined || curve !== undefined || this.fine !== null;
    this.half = grid.frames > 1 ? Math.min(halfToEven((edit.shape?.smooth_seconds ?? 0) / grid.hop_s / 2), grid.frames) : 0;
    this.keepsNegative = (edit.shape?.direction === "cut") === edit.amount >= 0;
    this.notes = notes.map((note) => this.block(note, note.gain_db));
    this.areas = edit.areas.map((area) => this.block(asNote(area), area.amount));
  }

  /** Returns the gains [row] of a frame in dB, at full amount. */
  column(frame: number): Float64Array {
    let column = this.columns.get(frame);
    if (!column) {
      if (this.columns.size > 64) this.columns.clear();
      this.columns.set(frame, (column = this.composed(frame)));
    }
    return column;
  }

  private composed(frame: number): Float64Array {
    const { grid } = this.found;
    let gains = this.shape(this.bent(this.smoothed(frame)));
    if (this.fine) {
      gains = this.fine.all(gains);
      this.place(gains, frame * grid.hop_s);
      for (let row = 0; row < gains.length; row++) gains[row] = Math.max(-grid.max_gain_db, Math.min(grid.max_gain_db, gains[row]));
    }
    // A gain halfway between two steps may be rounded the other way than by the renderer, which computes in single
    // precision: by 0.002 dB, which the output shows at -92 dB.
    if (this.computed) for (let row = 0; row < gains.length; row++) gains[row] = Math.round(gains[row] / grid.step_db) * grid.step_db;
    return gains;
  }

  /** Averages over time; the ends of the mask are mirrored. */
  private smoothed(frame: number): Float64Array {
    const { found, half } = this;
    const { row_hz, frames, step_db } = found.grid;
    const sum = new Float64Array(row_hz.length);
    for (let at = frame - half; at <= frame + half; at++) found.add(at < 0 ? -1 - at : at < frames ? at : 2 * frames - 1 - at, sum);
    const scale = step_db / (2 * half + 1);
    for (let row = 0; row < sum.length; row++) sum[row] *= scale;
    return sum;
  }

  /** Adds the curve, which smoothing over time does not change, or puts it in the place of the mean. */
  private bent(gains: Float64Array): Float64Array {
    if (!this.curved) return gains;
    const { mean_db } = this.found;
    const moving = this.edit.curve?.replaces_static ? gains.map((gain, row) => gain - mean_db[row]) : gains;
    const bent = this.curved.rows.all(moving);
    for (let row = 0; row < bent.length; row++) bent[row] += this.curved.gains[row];
    return bent;
  }

  private shape(gains: Float64Array): Float64Array {
    const { weights, edit } = this;
    let shaped = gains;
    if (weights) {
      shaped = new Float64Array(gains.length);
      for (let to = 0; to < gains.length; to++) {
        const from = to * gains.length;
        let sum = 0;
        for (let row = 0; row < gains.length; row++) sum += weights[from + row] * gains[row];
        shaped[to] = sum;
      }
    }
    if (edit.shape && edit.shape.direction !== "both") {
      const keep = this.keepsNegative ? Math.min : Math.max;
      for (let row = 0; row < shaped.length; row++) shaped[row] = keep(shaped[row], 0);
    }
    return shaped;
  }

  /** Scales gains by the areas and adds the notes; where notes overlap, their mean. */
  private place(gains: Float64Array, seconds: number): void {
    for (const { rows, value, ...span } of this.areas) {
      const share = coverage(Math.abs(seconds - span.seconds), span.half_s, span.ramp_s);
      if (share) for (let row = 0; row < gains.length; row++) gains[row] *= 1 + (value - 1) * share * rows[row];
    }
    const sounding = this.notes
      .map((note) => ({ ...note, share: coverage(Math.abs(seconds - note.seconds), note.half_s, note.ramp_s) }))
      .filter(({ share }) => share > 0);
    if (!sounding.length) return;
    for (let row = 0; row < gains.length; row++) {
      let sum = 0;
      let overlap = 0;
      for (const { rows, value, share } of sounding) {
        sum += value * share * rows[row];
        overlap += share * rows[row];
      }
      gains[row] += sum / Math.max(1, overlap);
    }
  }

  private block(note: Pick<Note, "seconds" | "hz" | "width_s" | "height_hz">, value: number): Block {
    const { edge_hz, edge_s } = this.found.grid;
    // A ramp longer than the block would leave no part of it at full gain.
    const ramp_hz = Math.min(edge_hz, note.height_hz / 2);
    const rows = Float64Array.from(this.hz, (hz) => coverage(Math.abs(hz - note.hz), note.height_hz / 2, ramp_hz));
    return { rows, seconds: note.seconds, half_s: note.width_s / 2, ramp_s: Math.min(edge_s, note.width_s / 2), value };
  }
}

function asNote({ start_s, end_s, low_hz, high_hz }: Area): Pick<Note, "seconds" | "hz" | "width_s" | "height_hz"> {
  return {
    seconds: (start_s + end_s) / 2,
    hz: (low_hz + high_hz) / 2,
    width_s: Math.max(Math.abs(end_s - start_s), 0.02),
    height_hz: Math.max(Math.abs(high_hz - low_hz), 20),
  };
}

/** Interpolates a curve linearly in octaves; its ends hold beyond them. */
function curveGains(points: [number, number][], hz: number[]): Float64Array {
  let next = 0;
  return Float64Array.from(hz, (at) => {
    while (next < points.length && points[next][0] <= at) next++;
    if (next === 0 || next === points.length) return points[Math.max(0, next - 1)][1];
    const [[low, below], [high, above]] = [points[next - 1], points[next]];
    return below + ((above - below) * Math.log(at / low)) / Math.log(high / low);
  });
}

/** Rounds halves to even numbers, as Python does. */
function halfToEven(value: number): number {
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 ? whole - 1 : whole;
}
