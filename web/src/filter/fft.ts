/** Complex FFT of lengths whose prime factors are 2, 3 and 5 (Stockham 1966, self-sorting). */

const SIN_3 = Math.sqrt(3) / 2;
const [COS_5, COS_5_2] = [1, 2].map((n) => Math.cos((2 * Math.PI * n) / 5));
const [SIN_5, SIN_5_2] = [1, 2].map((n) => Math.sin((2 * Math.PI * n) / 5));

type Values = Float64Array;

export class Fft {
  private factors: number[] = [];
  private cos: Values;
  private sin: Values;
  private spareRe: Values;
  private spareIm: Values;

  constructor(readonly length: number) {
    let rest = length;
    for (const factor of [4, 2, 3, 5]) for (; rest % factor === 0; rest /= factor) this.factors.push(factor);
    if (rest > 1) throw new Error(`an FFT of ${length} has the factor ${rest}; 2, 3 and 5 are possible`);
    this.cos = Float64Array.from({ length }, (_, n) => Math.cos((2 * Math.PI * n) / length));
    this.sin = Float64Array.from({ length }, (_, n) => -Math.sin((2 * Math.PI * n) / length));
    this.spareRe = new Float64Array(length);
    this.spareIm = new Float64Array(length);
  }

  /** Transforms in place. With the two arrays exchanged, it is the inverse times the length. */
  transform(re: Values, im: Values): void {
    let [fromRe, fromIm, toRe, toIm] = [re, im, this.spareRe, this.spareIm];
    let stride = 1;
    for (const factor of this.factors) {
      const parts = this.length / stride / factor;
      // A part of a transform lies at every `stride`-th place; every pass joins `factor` of them.
      for (let q = 0; q < parts; q++) this.join(factor, q, parts, stride, fromRe, fromIm, toRe, toIm);
      stride *= factor;
      [fromRe, fromIm, toRe, toIm] = [toRe, toIm, fromRe, fromIm];
    }
    if (fromRe === re) return;
    re.set(fromRe);
    im.set(fromIm);
  }

  private join(factor: number, q: number, parts: number, stride: number, re: Values, im: Values, toRe: Values, toIm: Values): void {
    const { cos, sin } = this;
    const turn = q * stride; // times the number of a part: below the length
    const from = stride * q;
    const to = stride * factor * q;
    const jump = stride * parts;
    const [c1, s1] = [cos[turn], sin[turn]];
    if (factor === 2) {
      for (let k = 0; k < stride; k++) {
        const a = from + k;
        const b = a + jump;
        const x = re[a] - re[b];
        const y = im[a] - im[b];
        toRe[to + k] = re[a] + re[b];
        toIm[to + k] = im[a] + im[b];
        toRe[to + k + stride] = x * c1 - y * s1;
        toIm[to + k + stride] = x * s1 + y * c1;
      }
      return;
    }
    const [c2, s2] = [cos[2 * turn], sin[2 * turn]];
    if (factor === 3) {
      for (let k = 0; k < stride; k++) {
        const a = from + k;
        const b = a + jump;
        const c = b + jump;
        const sumRe = re[b] + re[c];
        const sumIm = im[b] + im[c];
        const middleRe = re[a] - sumRe / 2;
        const middleIm = im[a] - sumIm / 2;
        const sideRe = SIN_3 * (im[b] - im[c]);
        const sideIm = SIN_3 * (re[c] - re[b]);
        toRe[to + k] = re[a] + sumRe;
        toIm[to + k] = im[a] + sumIm;
        let x = middleRe + sideRe;
        let y = middleIm + sideIm;
        toRe[to + k + stride] = x * c1 - y * s1;
        toIm[to + k + stride] = x * s1 + y * c1;
        x = middleRe - sideRe;
        y = middleIm - sideIm;
        toRe[to + k + 2 * stride] = x * c2 - y * s2;
        toIm[to + k + 2 * stride] = x * s2 + y * c2;
      }
      return;
    }
    const [c3, s3] = [cos[3 * turn], sin[3 * turn]];
    if (factor === 4) {
      for (let k = 0; k < stride; k++) {
        const a = from + k;
        const b = a + jump;
        const c = b + jump;
        const d = c + jump;
        const evenRe = re[a] + re[c];
        const evenIm = im[a] + im[c];
        const oddRe = re[a] - re[c];
        const oddIm = im[a] - im[c];
        const sumRe = re[b] + re[d];
        const sumIm = im[b] + im[d];
        const sideRe = im[b] - im[d];
        const sideIm = re[d] - re[b];
        toRe[to + k] = evenRe + sumRe;
        toIm[to + k] = evenIm + sumIm;
        let x = oddRe + sideRe;
        let y = oddIm + sideIm;
        toRe[to + k + stride] = x * c1 - y * s1;
        toIm[to + k + stride] = x * s1 + y * c1;
        x = evenRe - sumRe;
        y = evenIm - sumIm;
        toRe[to + k + 2 * stride] = x * c2 - y * s2;
        toIm[to + k + 2 * stride] = x * s2 + y * c2;
        x = oddRe - sideRe;
        y = oddIm - sideIm;
        toRe[to + k + 3 * stride] = x * c3 - y * s3;
        toIm[to + k + 3 * stride] = x * s3 + y * c3;
      }
      return;
    }
    const [c4, s4] = [cos[4 * turn], sin[4 * turn]];
    for (let k = 0; k < stride; k++) {
      const a = from + k;
      const b = a + jump;
      const c = b + jump;
      const d = c + jump;
      const e = d + jump;
      const outerRe = re[b] + re[e];
      const outerIm = im[b] + im[e];
      const innerRe = re[c] + re[d];
      const innerIm = im[c] + im[d];
      const outwardRe = re[b] - re[e];
      const outwardIm = im[b] - im[e];
      const inwardRe = re[c] - re[d];
      const inwardIm = im[c] - im[d];
      toRe[to + k] = re[a] + outerRe + innerRe;
      toIm[to + k] = im[a] + outerIm + innerIm;
      let middleRe = re[a] + COS_5 * outerRe + COS_5_2 * innerRe;
      let middleIm = im[a] + COS_5 * outerIm + COS_5_2 * innerIm;
      let sideRe = SIN_5 * outwardIm + SIN_5_2 * inwardIm;
      let sideIm = -SIN_5 * outwardRe - SIN_5_2 * inwardRe;
      let x = middleRe + sideRe;
      let y = middleIm + sideIm;
      toRe[to + k + stride] = x * c1 - y * s1;
      toIm[to + k + stride] = x * s1 + y * c1;
      x = middleRe - sideRe;
      y = middleIm - sideIm;
      toRe[to + k + 4 * stride] = x * c4 - y * s4;
      toIm[to + k + 4 * stride] = x * s4 + y * c4;
      middleRe = re[a] + COS_5_2 * outerRe + COS_5 * innerRe;
      middleIm = im[a] + COS_5_2 * outerIm + COS_5 * innerIm;
      sideRe = SIN_5_2 * outwardIm - SIN_5 * inwardIm;
      sideIm = SIN_5 * inwardRe - SIN_5_2 * outwardRe;
      x = middleRe + sideRe;
      y = middleIm + sideIm;
      toRe[to + k + 2 * stride] = x * c2 - y * s2;
      toIm[to + k + 2 * stride] = x * s2 + y * c2;
      x = middleRe - sideRe;
      y = middleIm - sideIm;
      toRe[to + k + 3 * stride] = x * c3 - y * s3;
      toIm[to + k + 3 * stride] = x * s3 + y * c3;
    }
  }
}
