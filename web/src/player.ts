/**
 * Plays input, output and their difference without gaps and at the same position.
 *
 * The server sends ranges of samples of input and output. They are scheduled one after the other, exact
 * to the sample. All three ways of listening are gains on these two signals, so switching changes only
 * gains. A change of the mask starts a new generation of ranges shortly ahead of the playback position,
 * and fades over to it.
 */

import type { Levels, Session } from "./api";
import { FADE_S, Generation } from "./generation";
import { Meter } from "./meter";

export type Way = "input" | "output" | "difference";

const FIRST_S = 0.3; // a new generation during playback starts with a short range, because it arrives sooner
const START_S = 0.8; // playback starts with more, because the page may still be loading tiles
const PIECE_S = 1.0;
const AHEAD_S = 1.6;
const LEAD_S = 0.03; // from a request to its sound: the time that a range takes to arrive

export class Player extends EventTarget {
  way: Way = "output";
  loop: { start: number; end: number } | null = null;
  playing = false;
  amount: number | null = null; // while the slider moves: played before it is stored
  levels: Levels;
  readonly meter = new Meter();
  private context: AudioContext | null = null;
  private master: GainNode | null = null; // what is played
  private heard: GainNode | null = null; // that, after the filters of a solo
  private generation: Generation | null = null;
  private resting = 0; // position in seconds while nothing plays
  private inputs = new Map<number, Promise<Float32Array<ArrayBuffer>[]>>();
  private pumping = false;
  private refreshing = false;
  private again = false;
  private asked = 0;

  constructor(private session: Session) {
    super();
    this.levels = session.state.levels;
  }

  get duration(): number {
    return this.session.seconds;
  }

  get position(): number {
    if (!this.playing || !this.generation || !this.context) return this.resting;
    const heard = this.generation.at(this.context.currentTime, this.session.sound.rate);
    return Math.min(this.duration, heard / this.session.sound.rate);
  }

  async play(): Promise<void> {
    if (this.playing) return;
    const context = this.ready();
    this.playing = true;
    this.dispatchEvent(new Event("play"));
    await context.resume();
    if (this.resting >= this.duration - 0.02) this.resting = this.loop?.start ?? 0;
    await this.begin(this.resting);
  }

  pause(): void {
    if (!this.playing) return;
    this.resting = this.position;
    this.playing = false;
    this.generation?.stop(this.context?.currentTime ?? 0);
    this.generation = null;
    this.dispatchEvent(new Event("pause"));
  }

  toggle(): void {
    if (this.playing) this.pause();
    else void this.play();
  }

  seek(seconds: number): void {
    this.resting = Math.max(0, Math.min(this.duration, seconds));
    this.dispatchEvent(new Event("seeking"));
    if (this.playing) void this.begin(this.resting);
    this.dispatchEvent(new Event("timeupdate"));
  }

  /** Switches to input, output or their difference at the same position. */
  listen(way: Way): void {
    this.way = way;
    this.dispatchEvent(new Event("way"));
    if (this.context && this.generation) this.balance(this.generation, this.context.currentTime, 0.008);
  }

  /** The output changed: it is approximated at once, and played as soon as the server has rendered it. */
  async refresh(): Promise<void> {
    if (!this.playing || !this.generation || !this.context) return;
    this.asked ||= performance.now();
    if (this.amount !== null) {
      const start = performance.now();
      this.balance(this.generation, this.context.currentTime, 0.01);
      // From the slider's event until the mix leaves the audio graph.
      const end = performance.now() + 1000 * this.context.baseLatency;
      performance.measure("change-to-approximation", { start, end });
    }
    if (this.refreshing) {
      this.again = true;
      return;
    }
    this.refreshing = true;
    try {
      await this.renew();
    } catch {
      this.pause();
      this.dispatchEvent(new Event("lost"));
    } finally {
      this.refreshing = false;
    }
  }

  private async renew(): Promise<void> {
    do {
      if (!this.generation || !this.context) return;
      this.again = false;
      const asked = this.asked;
      this.asked = 0;
      const ahead = this.context.currentTime + LEAD_S;
      const { rate } = this.session.sound;
      const heard = await this.begin(this.generation.at(ahead, rate) / rate, ahead);
      if (heard !== null && asked) {
        const until = performance.now() + Math.max(0, heard - this.context.currentTime) * 1000;
        performance.measure("change-to-sound", { start: asked, end: until });
      }
    } while (this.again && this.playing);
  }

  /** Plays only the frequencies of a box, or everything. */
  solo(band: { low: number; high: number } | null): void {
    const context = this.ready();
    const master = this.master as GainNode;
    master.disconnect();
    const top = context.sampleRate / 2;
    // Two Butterworth filters in a row fall by 24 dB an octave.
    const filters = band
      ? [["highpass", band.low], ["highpass", band.low], ["lowpass", band.high], ["lowpass", band.high]]
          .filter(([type, hz]) => (type === "highpass" ? Number(hz) > 45 : Number(hz) < 0.95 * top))
          .map(([type, hz]) => new BiquadFilterNode(context, { type: type as BiquadFilterType, frequency: Number(hz), Q: Math.SQRT1_2 }))
      : [];
    [master, ...filters].reduce<AudioNode>((from, to) => (from === to ? to : from.connect(to)), master).connect(this.heard as GainNode);
  }

  forget(): void {
    this.pause();
    void this.context?.close();
    this.context = null;
  }

  private ready(): AudioContext {
    if (!this.context) {
      const rate = this.session.sound.rate;
      this.context = new AudioContext({ latencyHint: "interactive", sampleRate: Math.max(rate, 8000) });
      this.master = new GainNode(this.context);
      this.heard = new GainNode(this.context);
      this.master.connect(this.heard).connect(this.context.destination);
      void this.meter.listen(this.context, this.heard);
    }
    return this.context;
  }

  /** Starts a generation at a position; returns when its playback starts, on the audio clock. */
  private async begin(seconds: number, wanted?: number): Promise<number | null> {
    const context = this.ready();
    const { rate, samples } = this.session.sound;
    const start = Math.min(Math.round(seconds * rate), samples - 1);
    const before = this.generation;
    const stop = this.edge(start, wanted ? FIRST_S : START_S);
    const amount = this.amount ?? this.session.state.edit.amount;
    const [input, output] = await this.fetched(start, stop);
    if (!this.playing || this.generation !== before) return null;
    // A range that arrives late continues where playback should be by now. Ranges start on
    // whole samples of the audio clock, so that they join without a gap or an overlap.
    const soonest = Math.max(wanted ?? 0, context.currentTime + 0.008);
    const time = Math.ceil(soonest * rate) / rate;
    const late = wanted ? Math.round((time - wanted) * rate) : 0;
    const generation = new Generation(context, this.master as GainNode, start, wanted ?? time);
    generation.time = wanted ?? time;
    generation.amount = amount;
    before?.stop(time);
    this.generation = generation;
    this.schedule(generation, start, input, output, late, time);
    generation.fade.gain.setValueAtTime(0, time);
    generation.fade.gain.linearRampToValueAtTime(1, time + FADE_S);
    this.balance(generation, time, 0);
    void this.pump();
    return time;
  }

  private schedule(
    generation: Generation,
    start: number,
    input: Float32Array<ArrayBuffer>[],
    output: Float32Array<ArrayBuffer>[],
    skip: number,
    time: number,
  ): void {
    const context = this.ready();
    const { rate } = this.session.sound;
    const length = input[0].length;
    const from = Math.min(skip, length);
    for (const [channels, bus] of [
      [input, generation.input],
      [output, generation.output],
    ] as const) {
      const buffer = new AudioBuffer({ numberOfChannels: channels.length, length, sampleRate: rate });
      channels.forEach((channel, number) => buffer.copyToChannel(channel, number));
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(bus);
      source.start(time, from / rate);
      source.onended = () => source.disconnect();
      generation.sources.push(source);
    }
    generation.segments.push({ time, sample: start + from, length: length - from });
    if (generation.segments.length > 12) generation.segments.splice(0, 4);
    if (generation.sources.length > 24) generation.sources.splice(0, 8);
    generation.next = start + length;
    generation.time = (Math.round(time * rate) + length - from) / rate;
    const loop = this.loop;
    if (loop && generation.next >= Math.floor(loop.end * rate) && start < loop.end * rate) {
      generation.next = Math.round(loop.start * rate);
    }
  }

  /** Keeps a few seconds scheduled ahead of playback. */
  private async pump(): Promise<void> {
    if (this.pumping) return;
    this.pumping = true;
    try {
      while (this.playing && this.generation && this.context) {
        const generation = this.generation;
        const { samples } = this.session.sound;
        if (generation.next >= samples) {
          if (this.context.currentTime >= generation.time) {
            this.pause();
            this.resting = this.duration;
            this.dispatchEvent(new Event("ended"));
            return;
          }
          await pause(40);
        } else if (generation.time - this.context.currentTime > AHEAD_S) {
          await pause(60);
        } else {
          const start = generation.next;
          const [input, output] = await this.fetched(start, this.edge(start, PIECE_S));
          if (generation !== this.generation || generation.ended) continue;
          const { rate } = this.session.sound;
          const late = this.context.currentTime + 0.005 > generation.time;
          const time = late ? Math.ceil((this.context.currentTime + 0.02) * rate) / rate : generation.time;
          this.schedule(generation, start, input, output, 0, time);
          this.balance(generation, this.context.currentTime, 0.03);
        }
      }
    } catch {
      this.pause();
      this.dispatchEvent(new Event("lost"));
    } finally {
      this.pumping = false;
      if (this.playing && this.generation) void this.pump();
    }
  }

  /** Returns the end of a range: after its length, at the end of the loop or of the recording. */
  private edge(start: number, seconds: number): number {
    const { rate, samples } = this.session.sound;
    let stop = Math.min(samples, start + Math.round(seconds * rate));
    if (this.loop && start < this.loop.end * rate) stop = Math.min(stop, Math.round(this.loop.end * rate));
    return Math.max(stop, start + 1);
  }

  private async fetched(start: number, stop: number): Promise<[Float32Array<ArrayBuffer>[], Float32Array<ArrayBuffer>[]]> {
    const key = start * 2 ** 22 + (stop - start);
    let input = this.inputs.get(key);
    if (!input) {
      this.inputs.set(key, (input = this.samples("input", start, stop)));
      input.catch(() => this.inputs.delete(key));
      if (this.inputs.size > 40) this.inputs.delete(this.inputs.keys().next().value as number);
    }
    return Promise.all([input, this.samples("output", start, stop)]);
  }

  private async samples(which: "input" | "output", start: number, stop: number): Promise<Float32Array<ArrayBuffer>[]> {
    const amount = which === "output" && this.amount !== null ? `&amount=${this.amount}` : "";
    const answer = await fetch(
      `/api/sessions/${this.session.id}/sound/${which}?start=${start}&stop=${stop}${amount}`,
    );
    if (!answer.ok) throw new Error(String(answer.status));
    const content = await answer.arrayBuffer();
    if (which === "output") {
      this.levels = JSON.parse(answer.headers.get("X-Levels") as string) as Levels;
      this.dispatchEvent(new Event("levels"));
    }
    const channels = Number(answer.headers.get("X-Channels"));
    const length = content.byteLength / 4 / channels;
    return Array.from({ length: channels }, (_, n) => new Float32Array(content, n * length * 4, length));
  }

  /** Sets the gains of a way of listening. */
  private balance(generation: Generation, time: number, over: number): void {
    const input = 10 ** (this.levels.input_db / 20);
    const lift = 10 ** (this.levels.difference_db / 20);
    // Until the output of a new amount arrives, original and output are mixed. Their gains have no phase, so
    // a mix of 1 - w and w has the gain 1 - w + w g: that of the amount, for small changes.
    const amount = this.amount ?? this.session.state.edit.amount;
    const w = generation.amount ? Math.max(-1, Math.min(2, amount / generation.amount)) : 1;
    const gains = {
      input: [input, 0],
      output: [(1 - w) * input, w],
      difference: [-input * lift * w, lift * w],
    }[this.way];
    [generation.input, generation.output].forEach((bus, n) => {
      bus.gain.cancelScheduledValues(time);
      if (over) bus.gain.setTargetAtTime(gains[n], time, over / 3);
      else bus.gain.setValueAtTime(gains[n], time);
    });
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
