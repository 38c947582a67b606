/**
 * Plays input, output and their difference without gaps and at the same position.
 *
 * Ranges of samples are scheduled one after the other, exact to the sample. The output of an edit that the
 * server has rendered comes from there; until then, the input is filtered in the page. All three ways of
 * listening are gains on input and output, so switching changes only gains. A rendering that arrives starts a
 * new generation of ranges shortly ahead of the playback position, and fades over to it.
 */

import type { Edit, Levels, Session } from "./api";
import { Filtering } from "./filtering";
import { FADE_S, Generation } from "./generation";
import { LevelTable } from "./loudness";
import { Meter } from "./meter";

export type Way = "input" | "output" | "difference";

const FIRST_S = 0.3; // a new generation during playback starts with a short range, because it arrives sooner
const START_S = 0.8; // playback starts with more, because the page may still be loading tiles
const PIECE_S = 1.0;
const AHEAD_S = 1.6;
const LEAD_S = 0.03; // from a request to its sound: the time that a range takes to arrive
const MOST_LEAD_S = 1; // less than what is scheduled ahead
const SURE_S = 0.1; // the same, if the edit is heard already

type Channels = Float32Array<ArrayBuffer>[];

export class Player extends EventTarget {
  way: Way = "output";
  loop: { start: number; end: number } | null = null;
  playing = false;
  levels: Levels;
  readonly meter = new Meter();
  private context: AudioContext | null = null;
  private master: GainNode | null = null; // what is played
  private heard: GainNode | null = null; // that, after the filters of a solo
  private speaker: GainNode | null = null; // that, at the volume
  private loudness = 1;
  private generation: Generation | null = null;
  private resting = 0; // position in seconds while nothing plays
  private inputs = new Map<number, Promise<Channels>>();
  private draft: Edit | null = null; // played before it is stored
  private filtering: Filtering;
  private table: LevelTable;
  private slot = 0;
  private pumping = false;
  private refreshing = false;
  private again = false;
  private asked = 0;

  constructor(private session: Session) {
    super();
    this.levels = session.state.levels;
    this.filtering = new Filtering(session);
    this.table = new LevelTable(session, () => this.level());
  }

  /** Gain of everything that is played; the meter does not follow it. */
  set volume(gain: number) {
    this.loudness = gain;
    if (this.context) this.speaker?.gain.setTargetAtTime(gain, this.context.currentTime, 0.01);
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
    this.level();
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

  /** Plays an edit that is being made; null if it is stored. */
  preview(draft: Edit | null): void {
    const { state } = this.session;
    const { amount } = this.edit;
    this.draft = draft && JSON.stringify(draft) !== JSON.stringify(state.edit) ? draft : null;
    const asked = performance.now();
    this.level(asked);
    if (this.filtering.ready) {
      const outdated = this.rendered ? this.generation?.key !== state.key : !this.filtering.fits;
      if (outdated) void this.refresh();
    } else if (this.edit.amount !== amount) {
      this.asked ||= asked;
      void this.refresh();
    }
  }

  /** A state of the server is shown; `changed` if it is another edit, `draft` if the page has a newer one. */
  accept(draft: Edit | null, changed: boolean): void {
    this.preview(draft);
    if (changed && !this.filtering.ready) void this.refresh();
  }

  /** Forgets what a cancelled search found of a mask. */
  drop(found: number): void {
    this.filtering.drop(found);
  }

  /** Plays the edit, at the levels that are known now. */
  private level(asked = 0): void {
    const { state } = this.session;
    const estimated = this.playing ? this.table.at(this.edit) : null; // also for the first change of a stored edit
    this.levels = ((this.draft || state.part) && estimated) || state.levels;
    this.dispatchEvent(new Event("levels"));
    const { context, generation } = this;
    if (!context || !generation) return;
    if (!this.serves(generation) && this.filtering.apply(this.edit, this.levels.output_db, asked)) generation.key = null;
    this.balance(generation, context.currentTime, 0.01);
    if (this.filtering.ready || !asked) return;
    // From the slider's event until a mix of original and output leaves the audio graph.
    performance.measure("change-to-approximation", { start: asked, end: performance.now() + 1000 * context.baseLatency });
  }

  private get edit(): Edit {
    return this.draft ?? this.session.state.edit;
  }

  /** Whether the server's output can be played. */
  private get rendered(): boolean {
    return !this.filtering.ready || (this.session.state.whole && this.draft === null);
  }

  /** Whether a generation plays the server's output, and that of the edit. */
  private serves(generation: Generation): boolean {
    return this.rendered && (!this.filtering.ready || generation.key === this.session.state.key);
  }

  /** Schedules the output anew. */
  async refresh(): Promise<void> {
    if (!this.playing || !this.generation || !this.context) return;
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
    let lead = this.filtering.ready ? 2 * SURE_S : LEAD_S;
    do {
      if (!this.generation || !this.context) return;
      this.again = false;
      const asked = this.asked;
      this.asked = 0;
      const ahead = this.context.currentTime + lead;
      const { rate } = this.session.sound;
      const heard = await this.begin(this.generation.at(ahead, rate) / rate, ahead);
      if (heard === null && this.again) {
        // It came too late: it is tried again, and given more time.
        this.asked ||= asked;
        lead = Math.min(MOST_LEAD_S, 2 * lead + LEAD_S);
      }
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
    this.filtering.stop();
  }

  private ready(): AudioContext {
    if (!this.context) {
      const rate = this.session.sound.rate;
      this.context = new AudioContext({ latencyHint: "interactive", sampleRate: Math.max(rate, 8000) });
      this.master = new GainNode(this.context);
      this.heard = new GainNode(this.context);
      this.speaker = new GainNode(this.context, { gain: this.loudness });
      this.master.connect(this.heard).connect(this.speaker).connect(this.context.destination);
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
    await this.filtering.start(context);
    const first = this.filtering.ready ? PIECE_S : FIRST_S; // an edit that is heard already has time
    const stop = this.edge(start, wanted ? first : START_S);
    const { amount } = this.edit;
    const { key } = this.session.state;
    const [input, output] = await this.fetched(start, stop, this.rendered);
    if (!this.playing || this.generation !== before) return null;
    // A range that arrives late continues where playback should be by now. Ranges start on
    // whole samples of the audio clock, so that they join without a gap or an overlap.
    const least = wanted && this.filtering.ready ? SURE_S : 0.008;
    const soonest = Math.max(wanted ?? 0, context.currentTime + least);
    const time = Math.ceil(soonest * rate) / rate;
    const late = wanted ? Math.round((time - wanted) * rate) : 0;
    if (late >= input[0].length && before) {
      this.again = true; // all of it is past: playback goes on as it is, and this is tried again
      return null;
    }
    this.slot = 1 - this.slot;
    const generation = new Generation(context, this.master as GainNode, start, wanted ?? time, this.slot, this.filtering);
    generation.amount = amount;
    // An edit that was made meanwhile is filtered here.
    generation.key = output && key === this.session.state.key ? key : null;
    const exact = this.serves(generation);
    if (!exact) this.filtering.apply(this.edit, this.levels.output_db, 0);
    this.filtering.begin(generation.slot, exact);
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
    input: Channels,
    output: Channels | null,
    skip: number,
    time: number,
  ): void {
    const context = this.ready();
    const { rate } = this.session.sound;
    const length = input[0].length;
    const from = Math.min(skip, length);
    for (const channels of [input, output]) {
      if (!channels) continue;
      const buffer = new AudioBuffer({ numberOfChannels: channels.length, length, sampleRate: rate });
      channels.forEach((channel, number) => buffer.copyToChannel(channel, number));
      const source = new AudioBufferSourceNode(context, { buffer });
      if (channels === input) source.connect(generation.input);
      else if (this.filtering.ready) this.filtering.feed(generation.slot, source);
      else source.connect(generation.output);
      source.start(time, from / rate);
      source.onended = () => source.disconnect();
      generation.sources.push(source);
    }
    this.filtering.play(generation.slot, Math.round(time * rate), start + from, length - from);
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
          const [input, output] = await this.fetched(start, this.edge(start, PIECE_S), this.serves(generation));
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

  /** Returns the samples [start, stop) of the input, and those of the server's output if they are needed. */
  private async fetched(start: number, stop: number, rendered: boolean): Promise<[Channels, Channels | null]> {
    const { filtering } = this;
    const first = Math.max(0, start - filtering.margin);
    const last = Math.min(this.session.sound.samples, stop + filtering.margin);
    const key = start * 2 ** 22 + (stop - start);
    let input = this.inputs.get(key);
    if (!input) {
      this.inputs.set(key, (input = this.samples("input", first, last)));
      input.catch(() => this.inputs.delete(key));
      if (this.inputs.size > 40) this.inputs.delete(this.inputs.keys().next().value as number);
    }
    const [wide, output] = await Promise.all([
      input,
      rendered ? this.samples("output", start, stop) : null,
      filtering.ready && filtering.load(start, stop, this.edit),
    ]);
    filtering.pass(key, first, wide);
    return [wide.map((channel) => channel.subarray(start - first, stop - first)), output];
  }

  private async samples(which: "input" | "output", start: number, stop: number): Promise<Channels> {
    const amount = which === "output" && this.draft ? `&amount=${this.draft.amount}` : "";
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
    // Without a filter in the page, original and output are mixed until the output of a new amount arrives. Their
    // gains have no phase, so a mix of 1 - w and w has the gain 1 - w + w g: that of the amount, for small changes.
    const mixed = !this.filtering.ready && generation.amount;
    const w = mixed ? Math.max(-1, Math.min(2, this.edit.amount / generation.amount)) : 1;
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
