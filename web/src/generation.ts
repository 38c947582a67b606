/** Ranges of audio that are scheduled without a gap and faded together. */

import type { Filtering } from "./filtering";

export const FADE_S = 0.012;

interface Segment {
  time: number; // of the audio clock
  sample: number;
  length: number;
}

export class Generation {
  readonly input: GainNode;
  readonly output: GainNode;
  readonly fade: GainNode;
  readonly segments: Segment[] = [];
  readonly sources: AudioBufferSourceNode[] = [];
  ended = false;
  amount = 1; // of the mask in its output
  key: string | null = null; // of the edit that the server rendered for it

  constructor(
    context: AudioContext,
    target: AudioNode,
    public next: number, // sample that is scheduled next
    public time: number, // time at which it is played
    readonly slot: number, // of the filter
    private filtering: Filtering,
  ) {
    this.fade = new GainNode(context, { gain: 0 });
    this.input = new GainNode(context, { gain: 0 });
    this.output = new GainNode(context, { gain: 0 });
    this.input.connect(this.fade);
    this.output.connect(this.fade);
    filtering.connect(slot, this.output);
    this.fade.connect(target);
  }

  /** Returns the sample that is played at a time of the audio clock. */
  at(time: number, rate: number): number {
    let found = this.segments[0];
    if (!found) return this.next;
    for (const segment of this.segments) if (segment.time <= time) found = segment;
    const into = Math.max(0, (time - found.time) * rate);
    return found.sample + Math.min(into, found.length);
  }

  stop(time: number): void {
    if (this.ended) return;
    this.ended = true;
    this.fade.gain.cancelScheduledValues(time);
    this.fade.gain.setValueAtTime(1, time);
    this.fade.gain.linearRampToValueAtTime(0, time + FADE_S);
    for (const source of this.sources) {
      try {
        source.stop(time + FADE_S + 0.005);
      } catch {
        // it was not started
      }
    }
    window.setTimeout(() => {
      this.fade.disconnect();
      this.filtering.disconnect(this.slot, this.output);
    }, 1000 * (FADE_S + 0.3));
  }
}
