/**
 * Sends the audio thread what it filters with: samples, the found mask, and every change of the edit.
 *
 * Until the server has rendered an edit, the recording is filtered in the page, so that a change is heard at
 * once. A browser without worklets, or a rate that its audio does not have, leaves the filtering to the server.
 */

import { ask, get, maskOf, type Edit, type Session } from "./api";
import type { Grid } from "./filter/grid";
import { shapeWeights } from "./filter/shape";
import type { Message, Report } from "./filter/worklet";
import worklet from "./filter/worklet?worker&url";

const KEPT_RANGES = 40;
const KEPT_CHUNKS = 40; // of each mask: 3 min
const NEAR_S = 2.6; // half of the longest smoothing over time that the page offers, and a frame

interface Pending {
  id: number;
  asked: number; // performance.now() of the change
}

export class Filtering {
  private node: AudioWorkletNode | null = null;
  private starting: Promise<boolean> | null = null;
  private grid: Grid | null = null;
  private of = ""; // mask of the grid
  private loading: Promise<Grid> | null = null;
  private chunks = new Map<string, Promise<void>>();
  private ranges = new Set<number>();
  private last = ""; // edit that was sent
  private edits = 0;
  private pending: Pending[] = [];

  constructor(private session: Session) {}

  get ready(): boolean {
    return this.node !== null;
  }

  /** Samples on either side that the filter of a range needs. */
  get margin(): number {
    return this.grid ? this.grid.window + 2 * this.grid.hop : 0;
  }

  /** Starts the worklet; returns whether the browser has one. */
  start(context: AudioContext): Promise<boolean> {
    this.starting ??= this.open(context).catch(() => false);
    return this.starting;
  }

  stop(): void {
    this.node = null;
    this.starting = null;
    this.ranges.clear();
    this.chunks.clear();
    this.last = "";
  }

  /** Puts the worklet between the sources of the output and a node. */
  connect(slot: number, output: AudioNode): void {
    this.node?.connect(output, slot);
  }

  disconnect(slot: number, output: AudioNode): void {
    this.node?.disconnect(output, slot);
  }

  /** Connects a source of rendered output. */
  feed(slot: number, source: AudioNode): void {
    if (this.node) source.connect(this.node, 0, slot);
  }

  begin(slot: number, exact: boolean): void {
    this.send({ kind: "begin", slot, exact });
  }

  /** A stretch of the recording is played at a time of the audio clock. */
  play(slot: number, frame: number, sample: number, length: number): void {
    this.send({ kind: "segment", slot, frame, sample, length });
  }

  /** Passes samples on. */
  pass(id: number, start: number, channels: Float32Array[]): void {
    if (this.ranges.delete(id)) this.ranges.add(id);
    else {
      this.ranges.add(id);
      this.send({ kind: "range", id, start, channels });
    }
    if (this.ranges.size <= KEPT_RANGES) return;
    const oldest = this.ranges.keys().next().value as number;
    this.ranges.delete(oldest);
    this.send({ kind: "range", id: oldest, start: 0, channels: null });
  }

  /** Loads the mask that the samples [start, stop) need with an edit. */
  async load(start: number, stop: number, edit: Edit): Promise<void> {
    const grid = await this.known();
    const { rate } = this.session.sound;
    const near = Math.max(NEAR_S, (edit.shape?.smooth_seconds ?? 0) / 2 + 0.1);
    const chunk = (seconds: number) => Math.floor(seconds / grid.hop_s / grid.chunk_frames);
    const first = Math.max(0, chunk(start / rate - near));
    const last = Math.min(Math.floor((grid.frames - 1) / grid.chunk_frames), chunk(stop / rate + near));
    const wanted = [];
    for (let number = first; number <= last; number++) {
      for (let mask = 0; mask < grid.mean_db.length; mask++) wanted.push(this.chunk(grid, mask, number));
    }
    await Promise.all(wanted);
  }

  /** Whether the mask of the edit is here. */
  get fits(): boolean {
    return this.grid?.found === maskOf(this.session.state);
  }

  /** Filters with an edit from now on; returns whether it is another one. */
  apply(edit: Edit, gain_db: number, asked: number): boolean {
    const { grid } = this;
    const gain = 10 ** (gain_db / 20);
    if (!this.node || !grid || !this.fits) return false;
    const key = `${grid.found} ${JSON.stringify(edit)}`;
    if (key === this.last) {
      this.send({ kind: "gain", gain });
      return false;
    }
    this.last = key;
    const id = ++this.edits;
    if (asked) this.pending = [...this.pending.slice(-20), { id, asked }];
    const weights = edit.shape ? shapeWeights(edit.curve ? grid.curve_hz : grid.row_hz, edit.shape) : null;
    this.send({ kind: "edit", id, found: grid.found, edit, weights, gain });
    return true;
  }

  /** Forgets what a cancelled search found of a mask. */
  drop(found: number): void {
    this.of = "";
    for (const name of this.chunks.keys()) if (name.startsWith(`${found} `)) this.chunks.delete(name);
  }

  private async open(context: AudioContext): Promise<boolean> {
    const { rate, channels, samples } = this.session.sound;
    if (context.sampleRate !== rate) return false;
    await Promise.all([context.audioWorklet.addModule(worklet), this.known()]);
    const node = new AudioWorkletNode(context, "mask-filter", {
      numberOfInputs: 2,
      numberOfOutputs: 2,
      outputChannelCount: [channels, channels],
      channelCount: channels,
      channelCountMode: "explicit",
      processorOptions: { recording: { rate, channels, samples } },
    });
    node.port.onmessage = ({ data }: MessageEvent<Report>) => this.report(data, context);
    this.node = node;
    if (this.grid) this.send({ kind: "grid", grid: this.grid });
    return true;
  }

  /** Measures how long a change took, from its event until its sound leaves the audio graph. */
  private report({ id, frame }: Report, context: AudioContext): void {
    const change = this.pending.find((item) => item.id === id);
    if (!change) return;
    this.pending = this.pending.filter((item) => item.id > id);
    const ahead = frame / context.sampleRate - context.currentTime + context.baseLatency;
    const end = Math.max(change.asked, performance.now() + 1000 * ahead);
    performance.measure("change-to-sound", { start: change.asked, end });
  }

  /** Returns the grid of the current mask. */
  private known(): Promise<Grid> {
    const { id, state, model } = this.session;
    const found = maskOf(state);
    // What is known of a mask is complete once its search has ended.
    const of = `${found} ${found === null ? model : ""}${state.part ? " in part" : ""}`;
    if (this.grid && this.of === of) return Promise.resolve(this.grid);
    this.loading ??= get<Grid>(`/sessions/${id}/filter${found === null ? "" : `?found=${found}`}`)
      .then((grid) => {
        const same = found !== null && this.grid?.found === found;
        [this.grid, this.of] = [grid, of];
        if (!same) for (const name of this.chunks.keys()) if (name.startsWith(`${grid.found} `)) this.chunks.delete(name);
        this.send({ kind: "grid", grid });
        return grid;
      })
      .finally(() => (this.loading = null));
    return this.loading;
  }

  private chunk({ found, chunk_frames, hop_s }: Grid, mask: number, number: number): Promise<void> {
    const { part } = this.session.state;
    // A chunk that a running search has not found wholly is loaded again when there is more.
    const grows = part && (number + 1) * chunk_frames * hop_s > part.seconds;
    const name = `${found} ${mask} ${number}${grows ? ` ${part.seconds}` : ""}`;
    let chunk = this.chunks.get(name);
    if (chunk) return chunk;
    const query = found === null ? "" : `&found=${found}`;
    chunk = ask("GET", `/sessions/${this.session.id}/filter/${number}?mask=${mask}${query}`).then(async (answer) => {
      this.send({ kind: "chunk", found, mask, number, steps: new Int16Array(await answer.arrayBuffer()) });
    });
    this.chunks.set(name, chunk);
    chunk.catch(() => this.chunks.delete(name));
    if (this.chunks.size > KEPT_CHUNKS * (this.grid?.mean_db.length ?? 1)) this.forget();
    return chunk;
  }

  private forget(): void {
    const oldest = this.chunks.keys().next().value as string;
    const [found, mask, number] = oldest.split(" ");
    this.chunks.delete(oldest);
    const newer = `${found} ${mask} ${number}`;
    if ([...this.chunks.keys()].some((name) => name === newer || name.startsWith(`${newer} `))) return;
    this.send({ kind: "chunk", found: found === "null" ? null : Number(found), mask: Number(mask), number: Number(number), steps: null });
  }

  private send(message: Message): void {
    this.node?.port.postMessage(message);
  }
}
