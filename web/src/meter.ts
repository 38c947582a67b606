/** Loudness and true peak of what is heard. */

import { h } from "./dom";

const FLOOR_DB = -60;
const HELD_MS = 2000; // for which the highest peak stays

const figure = (db: number) => (db > FLOOR_DB ? db.toFixed(1).replace("-", "−") : "−∞");

export class Meter {
  readonly element: HTMLElement;
  private bar = h("i", { class: "level" });
  private mark = h("i", { class: "peak" });
  private text = h("span", { class: "figure" }, "– LUFS");
  private highest = -Infinity;
  private since = 0;

  constructor() {
    this.element = h(
      "div",
      { class: "loudness", title: "Momentary loudness and true peak of what is heard", "aria-hidden": "true" },
      h("div", { class: "scale" }, this.bar, this.mark),
      this.text,
    );
  }

  /** Measures a node; a browser without worklets shows nothing. */
  async listen(context: AudioContext, node: AudioNode): Promise<void> {
    try {
      await context.audioWorklet.addModule("/meter.js");
    } catch {
      this.element.hidden = true;
      return;
    }
    const worklet = new AudioWorkletNode(context, "meter", { numberOfOutputs: 0 });
    worklet.port.onmessage = ({ data }: MessageEvent<{ lufs: number; peak_db: number }>) => this.show(data);
    node.connect(worklet);
  }

  private show({ lufs, peak_db }: { lufs: number; peak_db: number }): void {
    const now = performance.now();
    if (peak_db >= this.highest || now - this.since > HELD_MS) [this.highest, this.since] = [peak_db, now];
    const share = (db: number) => `${100 * Math.max(0, Math.min(1, (db - FLOOR_DB) / -FLOOR_DB))}%`;
    this.bar.style.width = share(lufs);
    this.mark.style.left = share(this.highest);
    this.element.classList.toggle("clipped", this.highest > 0);
    this.text.textContent = `${figure(lufs)} LUFS · ${figure(this.highest)} dBTP`;
  }
}
