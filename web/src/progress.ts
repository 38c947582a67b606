/** The progress of a job. Text and Cancel button stay the same elements, so that a click is not lost. */

import type { Job } from "./api";
import { button, h, s } from "./dom";

interface Step {
  number: number;
  score: number;
}

const PHASES: Record<string, string> = {
  listening: "Listening to the recording …",
  searching: "Searching …",
  checking: "Rendering and checking with the judge …",
  rendering: "Rendering …",
  explaining: "Computing what the scorer responds to …",
};

export class Progress {
  readonly element: HTMLElement;
  private text = h("span", {});
  private bar = h("progress", { hidden: true });
  private line = s("polyline");
  private spark = s("svg", { viewBox: "0 0 80 24", class: "spark", "aria-hidden": "true", hidden: "" }, this.line);
  private figure = h("span", { class: "figure" });

  constructor(cancel: () => void) {
    this.element = h(
      "div",
      { class: "progress" },
      h("i", { class: "spinner", "aria-hidden": "true" }),
      h("span", { role: "status" }, this.text),
      this.bar,
      this.spark as unknown as HTMLElement,
      this.figure,
      button("Cancel", "close", cancel, { class: "small" }),
    );
  }

  /** Shows a text, and a bar if the total is known. */
  tell(text: string, done = 0, of = 0): void {
    // A screen reader would read the same text again.
    if (this.text.textContent !== text) this.text.textContent = text;
    this.bar.hidden = of <= 0;
    this.bar.max = Math.max(1, of);
    this.bar.value = done;
    this.bar.setAttribute("aria-label", text);
  }

  /** Shows a search, with the curve of its score. */
  search(job: Job): void {
    const waits = job.state === "queued";
    this.tell(waits ? "Waiting for its turn …" : (PHASES[job.told.phase] ?? "Starting …"));
    const steps = (job.told.steps ?? []) as Step[];
    const last = steps[steps.length - 1];
    this.figure.textContent = last ? `score ${steps[0].score.toFixed(3)} → ${last.score.toFixed(3)}` : "";
    this.spark.toggleAttribute("hidden", steps.length < 2);
    this.line.setAttribute("points", falling(steps.map((step) => step.score)));
  }
}

function falling(values: number[]): string {
  const most = Math.max(...values, 1e-9);
  return values.map((v, n) => `${(n / Math.max(1, values.length - 1)) * 76 + 2},${22 - (v / most) * 20}`).join(" ");
}
