// Measures what is heard: momentary loudness (ITU-R BS.1770-5, 400 ms) and true peak (four-fold oversampling).
const OVERSAMPLING = 4;
const TAPS = 12; // of each of the four phases

/** Coefficients of the K-weighting's two filters at a sample rate, from their analogue prototypes. */
function weighting(rate) {
  const shelf = { hz: 1681.974450955533, gain_db: 3.999843853973347, q: 0.7071752369554196 };
  const pass = { hz: 38.13547087602444, q: 0.5003270373238773 };
  const k = Math.tan((Math.PI * shelf.hz) / rate);
  const high = 10 ** (shelf.gain_db / 20);
  const band = high ** 0.4996667741545416;
  const a0 = 1 + k / shelf.q + k * k;
  const p = Math.tan((Math.PI * pass.hz) / rate);
  const c0 = 1 + p / pass.q + p * p;
  return [
    [(high + (band * k) / shelf.q + k * k) / a0, (2 * (k * k - high)) / a0, (high - (band * k) / shelf.q + k * k) / a0,
      (2 * (k * k - 1)) / a0, (1 - k / shelf.q + k * k) / a0],
    [1, -2, 1, (2 * (p * p - 1)) / c0, (1 - p / pass.q + p * p) / c0],
  ];
}

/** Phases of a windowed sinc that interpolates between samples. */
function phases() {
  return Array.from({ length: OVERSAMPLING }, (_, phase) => {
    const taps = Array.from({ length: TAPS }, (_, n) => {
      const x = n - TAPS / 2 + 1 - phase / OVERSAMPLING;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
      return sinc * Math.cos((Math.PI * x) / (TAPS + 1)) ** 2;
    });
    const sum = taps.reduce((a, b) => a + b, 0);
    return taps.map((tap) => tap / sum);
  });
}

class Meter extends AudioWorkletProcessor {
  constructor() {
    super();
    this.filters = weighting(sampleRate);
    this.phases = phases();
    this.channels = [];
    this.peak = 0;
    this.blocks = []; // mean squares of the last 400 ms, in parts of 100 ms
    this.sum = 0;
    this.count = 0;
  }

  channel(n) {
    this.channels[n] ??= { states: [[0, 0], [0, 0]], past: new Float64Array(TAPS) };
    return this.channels[n];
  }

  process([input]) {
    const length = input[0]?.length ?? 128;
    input.forEach((samples, n) => this.measure(samples, this.channel(n)));
    this.count += length;
    if (this.count >= sampleRate / 10) this.report();
    return true;
  }

  measure(samples, { states, past }) {
    for (const sample of samples) {
      past.copyWithin(0, 1);
      past[TAPS - 1] = sample;
      for (const taps of this.phases) {
        let value = 0;
        for (let n = 0; n < TAPS; n++) value += taps[n] * past[n];
        this.peak = Math.max(this.peak, Math.abs(value));
      }
      let x = sample;
      this.filters.forEach(([b0, b1, b2, a1, a2], n) => {
        const state = states[n];
        const y = b0 * x + state[0];
        state[0] = b1 * x - a1 * y + state[1];
        state[1] = b2 * x - a2 * y;
        x = y;
      });
      this.sum += x * x;
    }
  }

  report() {
    this.blocks = [...this.blocks.slice(-3), this.sum / this.count];
    const power = this.blocks.reduce((a, b) => a + b, 0) / this.blocks.length;
    this.port.postMessage({ lufs: -0.691 + 10 * Math.log10(power), peak_db: 20 * Math.log10(this.peak) });
    [this.sum, this.count, this.peak] = [0, 0, 0];
  }
}
registerProcessor("meter", Meter);
