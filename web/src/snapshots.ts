/** Four versions of an edit to switch between; each keeps what is changed while it is chosen. */

import type { Edit, Session } from "./api";
import { card, h } from "./dom";
import type { Edits } from "./edits";

const NAMES = ["A", "B", "C", "D"];

interface Kept {
  now: number;
  edits: (Edit | null)[];
}

export class Snapshots {
  readonly element: HTMLElement;
  private buttons: HTMLButtonElement[];
  private kept: Kept = { now: 0, edits: [null, null, null, null] };

  constructor(
    private session: Session,
    private edits: Edits,
    private changed: () => void,
  ) {
    try {
      const stored = localStorage.getItem(this.key);
      if (stored) this.kept = JSON.parse(stored) as Kept;
    } catch {
      // a browser may forbid storage
    }
    this.buttons = NAMES.map((name, n) =>
      h("button", { type: "button", title: `Version ${name}`, "aria-label": `Version ${name}`, onclick: () => this.choose(n) }, name),
    );
    this.element = card(
      "Versions",
      h(
        "div",
        { class: "row" },
        h("div", { class: "segmented", role: "group", "aria-label": "Versions" }, ...this.buttons),
        h("span", { class: "quiet small" }, "An empty one starts as a copy. All are equally loud."),
      ),
    );
    this.show();
  }

  private get key(): string {
    return `versions-${this.session.id}`;
  }

  private choose(n: number): void {
    if (n === this.kept.now) return;
    this.kept.edits[this.kept.now] = this.edits.now;
    this.kept.now = n;
    const edit = this.kept.edits[n];
    this.kept.edits[n] = null; // it is the edit itself now
    try {
      localStorage.setItem(this.key, JSON.stringify(this.kept));
    } catch {
      // a browser may forbid storage
    }
    this.show();
    if (edit) this.edits.keep(edit);
    this.changed();
  }

  private show(): void {
    this.buttons.forEach((element, n) => {
      element.setAttribute("aria-pressed", String(n === this.kept.now));
      element.classList.toggle("empty", n !== this.kept.now && !this.kept.edits[n]);
    });
  }
}
