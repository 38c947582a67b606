/** A curve from a file, added to the static part of the automatic EQ or in its place. */

import { ask, trying, type Curve, type Edit } from "./api";
import { band, button, decibels, h, say } from "./dom";

const ENDINGS = ".csv,.txt,.tsv,.frd,.cal";

interface Desk {
  edit: Edit;
  keep(edit: Edit): void;
}

export class CurveRow {
  readonly element: HTMLElement;
  private input = h("input", { type: "file", accept: ENDINGS, hidden: true, "aria-label": "Curve file" });
  private open = button("From a file …", null, () => this.input.click(), {
    class: "small",
    title: "Room EQ Wizard, AutoEq, GraphicEQ, or lines of Hz and dB",
  });
  private facts = h("span", { class: "quiet" });
  private removal = button("Remove the curve", "trash", () => this.keep(null), { bare: true, class: "small" });
  private ways: HTMLElement;

  constructor(private desk: Desk) {
    this.input.addEventListener("change", () => void trying(() => this.read()));
    const way = (replaces_static: boolean, name: string, title: string) =>
      h("button", { type: "button", title, "data-replaces": String(replaces_static), onclick: () => this.choose(replaces_static) }, name);
    this.ways = h(
      "div",
      { class: "segmented", role: "group", "aria-label": "Use of the curve" },
      way(false, "Added", "Added to the automatic EQ"),
      way(true, "Instead", "Instead of the automatic EQ's average; its changes over time stay"),
    );
    this.element = h(
      "div",
      { class: "curve-file" },
      h("span", {}, "Curve"),
      h("div", { class: "row" }, this.facts, this.open, this.removal, this.input),
      this.ways,
    );
  }

  show(): void {
    const { curve } = this.desk.edit;
    this.open.hidden = curve !== undefined;
    this.facts.hidden = this.removal.hidden = this.ways.hidden = curve === undefined;
    if (!curve) return;
    const gains = curve.points.map(([, db]) => db);
    const [low, high] = [curve.points[0][0], curve.points[curve.points.length - 1][0]];
    this.facts.textContent = `${band(low, high)}, ${decibels(Math.min(...gains))} to ${decibels(Math.max(...gains))}`;
    for (const element of this.ways.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-replaces") === String(curve.replaces_static)));
    }
  }

  private async read(): Promise<void> {
    const file = this.input.files?.[0];
    if (!file) return;
    this.input.value = ""; // the same file may be chosen again
    const answer = await ask("POST", `/curves?name=${encodeURIComponent(file.name)}`, file);
    this.keep((await answer.json()) as Curve);
    say(`${file.name} is added to the automatic EQ.`);
  }

  private choose(replaces_static: boolean): void {
    const { curve } = this.desk.edit;
    if (curve) this.keep({ ...curve, replaces_static });
  }

  private keep(curve: Curve | null): void {
    const { curve: _, ...rest } = this.desk.edit;
    this.desk.keep(curve ? { ...rest, curve } : rest);
    if (!curve) this.open.focus();
  }
}
