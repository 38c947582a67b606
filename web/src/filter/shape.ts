/** Weights that smooth a mask over frequency and limit it, as `tonewood.mask.components` computes them. */

import type { Shape } from "../api";

const FADE_OCTAVES = 0.5;
const ROUNDS = 100;

let last: { hz: number[]; shape: string; weights: Float64Array } | null = null; // while an amount is turned

/** Returns the weight of each row in every shaped row [shaped row, row]; null if the shape changes none. */
export function shapeWeights(hz: number[], shape: Shape): Float64Array | null {
  if (!shape.smooth_octaves && shape.low_hz === null && shape.high_hz === null) return null;
  const key = JSON.stringify(shape);
  if (last?.hz !== hz || last.shape !== key) last = { hz, shape: key, weights: weightsOf(hz, shape) };
  return last.weights;
}

function weightsOf(hz: number[], shape: Shape): Float64Array {
  const lowest = Math.min(...hz.filter((at) => at > 0));
  const weights = smoothing(hz.map((at) => Math.log2(Math.max(at, lowest / 2))), shape.smooth_octaves);
  const rows = hz.length;
  hz.forEach((at, row) => {
    const octave = Math.log2(Math.max(at, 1e-3));
    let outside = 0;
    if (shape.low_hz !== null) outside = Math.max(outside, Math.log2(shape.low_hz) - octave);
    if (shape.high_hz !== null) outside = Math.max(outside, octave - Math.log2(shape.high_hz));
    const kept = 0.5 + 0.5 * Math.cos(Math.PI * Math.min(outside / FADE_OCTAVES, 1));
    for (let n = 0; n < rows; n++) weights[row * rows + n] *= kept;
  });
  return weights;
}

/** Averages over a Hann window `width` octaves wide; its sums are balanced in both directions. */
function smoothing(octaves: number[], width: number): Float64Array {
  const rows = octaves.length;
  const weights = new Float64Array(rows * rows);
  if (!width || rows < 2) {
    for (let row = 0; row < rows; row++) weights[row * rows + row] = 1;
    return weights;
  }
  // Octaves that a row represents.
  const span = (n: number) => {
    const [low, high] = [Math.max(0, n - 1), Math.min(rows - 1, n + 1)];
    return (octaves[high] - octaves[low]) / (high - low);
  };
  for (let to = 0; to < rows; to++) {
    for (let from = 0; from < rows; from++) {
      const distance = Math.abs(octaves[to] - octaves[from]) / width;
      if (distance < 1) weights[to * rows + from] = (0.5 + 0.5 * Math.cos(Math.PI * distance)) * span(from);
    }
  }
  let scale = new Float64Array(rows).fill(1);
  const sum = (to: number) => {
    let total = 0;
    for (let from = 0; from < rows; from++) total += weights[to * rows + from] * scale[from];
    return total;
  };
  for (let round = 0; round < ROUNDS; round++) scale = scale.map((value, to) => Math.sqrt(value / sum(to)));
  for (let to = 0; to < rows; to++) {
    const total = sum(to);
    for (let from = 0; from < rows; from++) weights[to * rows + from] *= scale[from] / total;
  }
  return weights;
}
