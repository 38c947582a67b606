/** The shape of the automatic EQ: smoothing, limits, cuts or boosts, and a curve. */

import type { Edit, Shape } from "./api";
import { CurveRow } from "./curve";
import { card, h, hertz } from "./dom";
import { Slider } from "./slider";

interface Desk {
  edit: Edit;
  preview(edit: Edit): void;
  keep(edit: Edit): void;
}

const DEFAULT: Shape = { smooth_octaves: 0, smooth_seconds: 0, low_hz: null, high_hz: null, direction: "both" };
const LOWEST_HZ = 20;
const HIGHEST_HZ = 20_000;
const DIRECTIONS: [Shape["direction"], string][] = [["both", "All"], ["cut", "Cuts only"], ["boost", "Boosts only"]];

// Limits move in octaves.
const toOctaves = (hz: number) => Math.log2(hz / LOWEST_HZ);
const toHz = (octaves: number) => Math.round(LOWEST_HZ * 2 ** octaves);
const MOST_OCTAVES = toOctaves(HIGHEST_HZ);

/** Parses "1.5k" or "200 Hz" as octaves above the lowest frequency. */
function parseHz(text: string): number {
  const value = Number.parseFloat(text.replace(",", "."));
  return toOctaves(/k/i.test(text) ? 1000 * value : value);
}

export class ShapeCard {
  readonly element: HTMLElement;
  private sliders: { slider: Slider; value: (shape: Shape) => number }[] = [];
  private directions: HTMLElement;
  private curve: CurveRow;

  constructor(private desk: Desk) {
    this.curve = new CurveRow(desk);
    const width = (value: number, unit: string, digits: number) => (value ? `${value.toFixed(digits)} ${unit}` : "off");
    const rows = [
      this.row("Smooth, pitch", { min: 0, max: 2, step: 0.05, reset: 0, text: (it) => width(it, "oct", 2) },
        (shape) => shape.smooth_octaves, (shape, value) => ({ ...shape, smooth_octaves: value })),
      this.row("Smooth, time", { min: 0, max: 5, step: 0.05, reset: 0, text: (it) => width(it, "s", 2) },
        (shape) => shape.smooth_seconds, (shape, value) => ({ ...shape, smooth_seconds: value })),
      this.row("Low limit", { min: 0, max: MOST_OCTAVES, step: 0.02, reset: 0, text: (it) => (it <= 0.01 ? "off" : hertz(toHz(it))), parse: parseHz },
        (shape) => (shape.low_hz === null ? 0 : toOctaves(shape.low_hz)), (shape, value) => limited(shape, "low_hz", value <= 0.01 ? null : toHz(value))),
      this.row("High limit", { min: 0, max: MOST_OCTAVES, step: 0.02, reset: MOST_OCTAVES, origin: MOST_OCTAVES, text: (it) => (it >= MOST_OCTAVES - 0.03 ? "off" : hertz(toHz(it))), parse: parseHz },
        (shape) => (shape.high_hz === null ? MOST_OCTAVES : toOctaves(shape.high_hz)),
        (shape, value) => limited(shape, "high_hz", value >= MOST_OCTAVES - 0.03 ? null : Math.max(25, toHz(value)))),
    ];
    this.directions = h(
      "div",
      { class: "segmented", role: "group", "aria-label": "Direction" },
      ...DIRECTIONS.map(([direction, name]) =>
        h("button", { type: "button", "data-direction": direction, onclick: () => this.desk.keep(this.shaped((shape) => ({ ...shape, direction }))) }, name),
      ),
    );
    this.element = card("Shape of the automatic EQ", ...rows, this.directions, this.curve.element);
  }

  show(found: boolean): void {
    this.element.hidden = !found;
    this.curve.show();
    const shape = this.desk.edit.shape ?? DEFAULT;
    for (const { slider, value } of this.sliders) slider.show(value(shape));
    for (const element of this.directions.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-direction") === shape.direction));
    }
  }

  private row(
    label: string,
    range: { min: number; max: number; step: number; reset: number; origin?: number; text(value: number): string; parse?(text: string): number },
    value: (shape: Shape) => number,
    turn: (shape: Shape, value: number) => Shape,
  ): HTMLElement {
    const slider = new Slider({ ...range, label }, {
      turned: (now) => this.desk.preview(this.shaped((shape) => turn(shape, now))),
      kept: (now) => this.desk.keep(this.shaped((shape) => turn(shape, now))),
    });
    this.sliders.push({ slider, value });
    return h("div", { class: "shape-row" }, h("span", { "aria-hidden": "true" }, label), slider.input, slider.figure);
  }

  /** Returns the edit in another shape; the default is left out, as the server does. */
  private shaped(turn: (shape: Shape) => Shape): Edit {
    const { shape: before, ...rest } = this.desk.edit;
    const shape = turn(before ?? DEFAULT);
    const plain = JSON.stringify(shape) === JSON.stringify(DEFAULT);
    return plain ? rest : { ...rest, shape };
  }
}

/** Moves one limit; the other gives way, so that the range is never empty. */
function limited(shape: Shape, which: "low_hz" | "high_hz", hz: number | null): Shape {
  const next = { ...shape, [which]: hz };
  if (next.low_hz === null || next.high_hz === null || next.low_hz < next.high_hz) return next;
  return which === "low_hz" ? { ...next, high_hz: next.low_hz + 1 } : { ...next, low_hz: Math.max(1, next.high_hz - 1) };
}
