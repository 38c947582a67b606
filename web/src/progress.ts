/** The progress of a job. Text and Cancel button stay the same elements, so that a click is not lost. */

import type { Job } from "./api";
import { button, clock, h } from "./dom";

const PHASES: Record<string, string> = {
  listening: "Listening to the recording …",
  searching: "Searching …",
  checking: "Rendering and checking …",
  rendering: "Rendering …",
  explaining: "Explaining the score …",
};

const LONG_S = 90; // shorter recordings are not counted in minutes

export class Progress {
  readonly element: HTMLElement;
  private text = h("span", {});
  private bar = h("progress", { hidden: true });
  private figure = h("span", { class: "figure" });
  private timer = 0;
  private started = 0; // when the job began to run, on this page's clock
  private job = "";

  constructor(cancel: () => void) {
    this.element = h(
      "div",
      { class: "progress" },
      h("i", { class: "spinner", "aria-hidden": "true" }),
      h("span", { role: "status" }, this.text),
      this.bar,
      this.figure,
      button("Cancel", "close", cancel, { class: "small" }),
    );
  }

  stop(): void {
    clearInterval(this.timer);
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

  /** Shows a search: its place in the queue, or its phase and the time left. */
  search(job: Job, seconds: number): void {
    if (job.state === "queued") {
      const { ahead } = job;
      this.tell(ahead ? `Queued (${ahead} ahead)` : "Queued");
      this.figure.textContent = "";
      return;
    }
    if (job.id !== this.job) {
      this.job = job.id;
      this.started = performance.now() - 1000 * (job.running_s ?? 0);
    }
    const show = () => {
      const elapsed = (performance.now() - this.started) / 1000;
      const expected = job.expected_s;
      const phase = place(job.told.phase, job.told.at_s, seconds);
      if (!expected) this.tell(phase);
      else this.tell(phase, Math.min(elapsed, 0.98 * expected), expected);
      this.figure.textContent = left(elapsed, expected);
    };
    show();
    clearInterval(this.timer);
    this.timer = window.setInterval(show, 500);
  }
}

/** Names a phase, and the minute of a long recording that it has reached. */
function place(phase: string, at_s: number | null | undefined, seconds: number): string {
  const name = PHASES[phase] ?? "Starting …";
  if (at_s == null || seconds < LONG_S) return name;
  return `${name.replace(" …", "")}: minute ${Math.floor(at_s / 60) + 1} of ${Math.ceil(seconds / 60)}`;
}

/** Says how long a job still takes, from its age and its expected duration. */
function left(elapsed: number, expected: number | null | undefined): string {
  const age = clock(elapsed, 0);
  if (!expected) return age;
  const rest = expected - elapsed;
  if (rest < 1) return `${age}, nearly done`;
  return `${age}, about ${rest < 90 ? `${Math.ceil(rest)} s` : `${Math.ceil(rest / 60)} min`} left`;
}
