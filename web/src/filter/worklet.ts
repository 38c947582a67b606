/** Audio thread: plays what the server rendered, or filters the recording through the mask of an edit. */

import type { Edit } from "../api";
import type { Grid, Recording } from "./grid";
import { EditedMask, FoundMask } from "./mask";
import { Samples } from "./samples";
import { Analysis, Filter } from "./stft";

declare const sampleRate: number;
declare const currentFrame: number;
declare function registerProcessor(name: string, processor: unknown): void;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}

/** Messages of the page. */
export type Message =
  | { kind: "grid"; grid: Grid }
  | { kind: "chunk"; found: number | null; mask: number; number: number; steps: Int16Array | null } // null: no longer needed
  | { kind: "range"; id: number; start: number; channels: Float32Array[] | null }
  | { kind: "edit"; id: number; found: number | null; edit: Edit; weights: Float64Array | null; gain: number }
  | { kind: "gain"; gain: number }
  | { kind: "begin"; slot: number; exact: boolean }
  | { kind: "segment"; slot: number; frame: number; sample: number; length: number };

/** The message to the page: an edit is heard from a frame of the audio clock on. */
export interface Report {
  id: number;
  frame: number;
}

const FADE_S = 0.004; // between two masks
const GAIN_S = 0.01; // in which a level follows its estimate
const QUANTUM = 128;
const KEPT_SEGMENTS = 12;

/** One of two sounds between which a slot fades. */
interface Voice {
  id: number;
  filter: Filter | null; // null: what the server rendered
  gain: number; // wanted
  from: number; // gain at the start and at the end of a quantum
  to: number;
}

interface Segment {
  frame: number;
  sample: number;
  length: number;
}

/** A position of playback; two of them fade over when playback jumps. */
class Slot {
  segments: Segment[] = [];
  now: Voice;
  next: Voice | null = null;
  waiting: Voice | null = null; // after the next one
  private faded = 0;
  private room: Float32Array[] = [];

  constructor(
    voice: Voice,
    private heard: (voice: Voice, frame: number) => void,
  ) {
    this.now = voice;
  }

  begin(voice: Voice): void {
    [this.now, this.next, this.waiting, this.segments] = [voice, null, null, []];
  }

  change(voice: Voice): void {
    if (this.next) this.waiting = voice;
    else [this.next, this.faded] = [voice, 0];
  }

  render(input: Float32Array[], output: Float32Array[]): void {
    const span = Math.round(FADE_S * sampleRate);
    if (this.next && this.faded === 0) this.heard(this.next, currentFrame + span / 2);
    this.play(this.now, input, output);
    if (!this.next) return;
    while (this.room.length < output.length) this.room.push(new Float32Array(QUANTUM));
    const room = this.room.slice(0, output.length);
    this.play(this.next, input, room);
    output.forEach((samples, channel) => {
      for (let n = 0; n < samples.length; n++) {
        const share = Math.min(1, (this.faded + n + 1) / span);
        samples[n] += share * (room[channel][n] - samples[n]);
      }
    });
    this.faded += output[0].length;
    if (this.faded < span) return;
    [this.now, this.next, this.waiting, this.faded] = [this.next, this.waiting, null, 0];
  }

  private play(voice: Voice, input: Float32Array[], output: Float32Array[]): void {
    if (!voice.filter) {
      output.forEach((samples, channel) => (input[channel] ? samples.set(input[channel]) : samples.fill(0)));
      return;
    }
    const length = output[0].length;
    for (const samples of output) samples.fill(0);
    for (const { frame, sample, length: lasts } of this.segments) {
      const begin = Math.max(0, frame - currentFrame);
      const end = Math.min(length, frame + lasts - currentFrame);
      if (begin < end) voice.filter.read(sample + currentFrame + begin - frame, end - begin, output, begin);
    }
    for (const samples of output) {
      for (let n = 0; n < length; n++) samples[n] *= voice.from + ((voice.to - voice.from) * (n + 1)) / length;
    }
  }
}

const EXACT: Voice = { id: -1, filter: null, gain: 1, from: 1, to: 1 };

class MaskFilter extends AudioWorkletProcessor {
  private samples: Samples;
  private masks = new Map<number | null, { components: FoundMask[]; analysis: Analysis }>();
  private voice = EXACT; // the newest edit
  private slots: Slot[];

  constructor({ processorOptions }: { processorOptions: { recording: Recording; messages?: Message[] } }) {
    super();
    this.samples = new Samples(processorOptions.recording);
    const heard = ({ id }: Voice, frame: number) => this.port.postMessage({ id, frame } satisfies Report);
    this.slots = [new Slot(EXACT, heard), new Slot(EXACT, heard)];
    this.port.onmessage = ({ data }: MessageEvent<Message>) => this.receive(data);
    for (const message of processorOptions.messages ?? []) this.receive(message);
  }

  process(inputs: Float32Array[][], outputs: Float32Array[][]): boolean {
    const voices = new Set(this.slots.flatMap(({ now, next }) => (next ? [now, next] : [now])));
    const step = 1 - Math.exp(-QUANTUM / (GAIN_S * sampleRate));
    for (const voice of voices) [voice.from, voice.to] = [voice.to, voice.to + step * (voice.gain - voice.to)];
    this.slots.forEach((slot, n) => slot.render(inputs[n], outputs[n]));
    return true;
  }

  private receive(message: Message): void {
    if (message.kind === "grid") {
      const { grid } = message;
      const known = this.masks.get(grid.found)?.components;
      if (known && grid.found !== null) {
        known.forEach((mask, n) => (mask.mean_db = grid.mean_db[n])); // a search has found more of it
        return;
      }
      if (this.masks.size > 1) this.masks.delete(this.masks.keys().next().value as number | null);
      const components = grid.mean_db.map((mean_db) => new FoundMask(grid, mean_db));
      this.masks.set(grid.found, { components, analysis: new Analysis(this.samples, grid) });
    } else if (message.kind === "chunk") {
      const mask = this.masks.get(message.found)?.components[message.mask];
      if (message.steps) mask?.put(message.number, message.steps);
      else mask?.drop(message.number);
    } else if (message.kind === "range") {
      if (message.channels) this.samples.put(message.id, { start: message.start, channels: message.channels });
      else this.samples.drop(message.id);
    } else if (message.kind === "edit") this.edit(message);
    else if (message.kind === "gain") this.voice.gain = message.gain;
    else if (message.kind === "begin") this.slots[message.slot].begin(message.exact ? EXACT : this.voice);
    else {
      const { segments } = this.slots[message.slot];
      segments.push(message);
      if (segments.length > KEPT_SEGMENTS) segments.shift();
    }
  }

  private edit({ id, found, edit, weights, gain }: Extract<Message, { kind: "edit" }>): void {
    const known = this.masks.get(found);
    if (!known) return;
    const masks = known.components.map((mask) => new EditedMask(mask, edit, weights));
    const filter = new Filter(known.analysis, masks, edit.amount);
    this.voice = { id, filter, gain, from: gain, to: gain };
    for (const slot of this.slots) slot.change(this.voice);
  }
}

registerProcessor("mask-filter", MaskFilter);
