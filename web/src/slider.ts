/** A slider whose value can be typed and is reset by a double click. */

import { h } from "./dom";

interface Range {
  min: number;
  max: number;
  step: number;
  reset: number; // value after a double click
  origin?: number; // value without effect, from which the track is filled
  label: string;
  text(value: number): string;
  /** Returns the value of a typed text; NaN if it is none. */
  parse?(text: string): number;
}

interface Heard {
  /** The value changes; it is shown and played at once. */
  turned(value: number): void;
  /** The change is complete. */
  kept(value: number): void;
}

const number = (text: string): number => Number.parseFloat(text.replace("−", "-").replace(",", "."));

/** Parses "50 %" as 0.5. */
export const parsePercent = (text: string): number => number(text) / 100;

export class Slider {
  readonly input: HTMLInputElement;
  readonly figure: HTMLButtonElement;
  private value = 0;

  constructor(
    private range: Range,
    private heard: Heard,
    props: Record<string, unknown> = {},
  ) {
    const { min, max, step, label } = range;
    this.input = h("input", { type: "range", min: String(min), max: String(max), step: String(step), "aria-label": label, ...props });
    this.input.addEventListener("input", () => this.turn(Number(this.input.value)));
    this.input.addEventListener("change", () => heard.kept(Number(this.input.value)));
    this.input.addEventListener("dblclick", () => this.give(range.reset));
    this.input.title = `Double-click: ${range.text(range.reset)}`;
    this.figure = h("button", { type: "button", class: "value", title: "Type a value", onclick: () => this.type() });
    this.show(range.reset);
  }

  /** Shows a value that was not made here. */
  show(value: number, label = this.range.label): void {
    this.value = value;
    const text = this.range.text(value);
    if (Number(this.input.value) !== value) this.input.value = String(value);
    this.input.setAttribute("aria-label", label);
    this.input.setAttribute("aria-valuetext", text);
    const { min, max } = this.range;
    const share = (at: number) => (100 * (Math.max(min, Math.min(max, at)) - min)) / (max - min);
    const origin = share(this.range.origin ?? 0);
    this.input.style.setProperty("--from", `${Math.min(origin, share(value))}%`);
    this.input.style.setProperty("--share", `${Math.max(origin, share(value))}%`);
    if (this.figure.textContent !== text) this.figure.textContent = text;
    this.figure.setAttribute("aria-label", `${label}: ${text}; type a value`);
  }

  private turn(value: number): void {
    this.show(value, this.input.getAttribute("aria-label") ?? undefined);
    this.heard.turned(value);
  }

  private give(value: number): void {
    this.turn(value);
    this.heard.kept(value);
  }

  /** Replaces the figure by a field until Enter, Escape, or a click elsewhere. */
  private type(): void {
    const { range } = this;
    const field = h("input", { type: "text", class: "value", inputmode: "decimal", "aria-label": `${this.input.getAttribute("aria-label")}: value` });
    field.value = range.text(this.value).replace(/[^\d.,−-]/g, "");
    let open = true;
    const close = (keep: boolean) => {
      if (!open) return;
      open = false;
      const typed = (range.parse ?? number)(field.value);
      field.replaceWith(this.figure);
      if (keep && Number.isFinite(typed)) this.give(Math.max(range.min, Math.min(range.max, typed)));
      this.figure.focus({ preventScroll: true });
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") close(true);
      if (event.key === "Escape") close(false);
      if (event.key === "Enter" || event.key === "Escape") event.preventDefault();
      event.stopPropagation();
    });
    field.addEventListener("blur", () => close(true));
    this.figure.replaceWith(field);
    field.select();
  }
}
