// All sounds of a screen run at once, sample by sample together; switching only moves their gains.

const FADE_S = 0.005; // short enough to seem instant, long enough not to click
const AHEAD_S = 0.05;

export class Player {
  /** @param {number} rate Hz, of the files: nothing is resampled on decoding. */
  constructor(rate) {
    this.context = new AudioContext({ sampleRate: rate });
    this.master = this.context.createGain();
    this.master.connect(this.context.destination);
    this.buffers = [];
    this.gains = [];
    this.sources = [];
    this.current = 0;
    this.playing = false;
    this.offset = 0;
    this.heard = new Set();
    this.switches = 0;
    this.loop = true;
    this.onend = () => {};
  }

  /** @param {ArrayBuffer[]} files */
  async load(files, loop = true) {
    this.pause();
    this.buffers = await Promise.all(files.map((file) => this.context.decodeAudioData(file)));
    this.current = 0;
    this.offset = 0;
    this.heard = new Set();
    this.switches = 0;
    this.loop = loop;
  }

  get duration() {
    return this.buffers.length ? this.buffers[0].duration : 0;
  }

  get position() {
    if (!this.playing) return this.offset;
    const run = Math.max(0, this.context.currentTime - this.began);
    return this.loop ? (this.offset + run) % this.duration : Math.min(this.offset + run, this.duration);
  }

  set volume(value) {
    this.master.gain.setTargetAtTime(value, this.context.currentTime, 0.02);
  }

  async play() {
    if (this.playing || !this.buffers.length) return;
    this.playing = true;
    await this.context.resume();
    if (!this.playing) return; // paused meanwhile
    this.began = this.context.currentTime + AHEAD_S;
    this.gains = this.buffers.map((_, k) => {
      const gain = this.context.createGain();
      gain.gain.value = k === this.current ? 1 : 0;
      gain.connect(this.master);
      return gain;
    });
    this.sources = this.buffers.map((buffer, k) => {
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.loop = this.loop;
      source.connect(this.gains[k]);
      source.start(this.began, this.offset);
      return source;
    });
    this.sources[0].onended = () => {
      if (this.loop || !this.playing) return;
      this.pause();
      this.offset = 0;
      this.onend();
    };
    this.heard.add(this.current);
  }

  pause() {
    if (!this.playing) return;
    this.offset = this.position;
    this.playing = false;
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
    }
    for (const gain of this.gains) gain.disconnect();
    this.sources = [];
  }

  restart() {
    const ran = this.playing;
    this.pause();
    this.offset = 0;
    if (ran) this.play();
  }

  /** Hear another sound from the same moment on. */
  choose(place) {
    if (place === this.current && this.playing) return;
    if (place !== this.current) this.switches += 1;
    this.current = place;
    if (!this.playing) return;
    const now = this.context.currentTime;
    this.gains.forEach((gain, k) => {
      gain.gain.cancelScheduledValues(now);
      gain.gain.setValueAtTime(gain.gain.value, now);
      gain.gain.linearRampToValueAtTime(k === place ? 1 : 0, now + FADE_S);
    });
    this.heard.add(place);
  }
}
