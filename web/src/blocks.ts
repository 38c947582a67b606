/** Boxes of notes and areas on the picture: drawn, moved and resized by pointer and keyboard. */

import type { Edit } from "./api";
import { h } from "./dom";
import type { Scale } from "./scale";

export type Tool = "move" | "note" | "area" | "loop";

export interface Box {
  start: number;
  end: number;
  low: number;
  high: number;
}

export interface Desk {
  edit: Edit;
  selected: string | null;
  select(id: string | null): void;
  /** Scrolls to an item and selects it. */
  reveal(id: string): void;
  /** Shows a change while it is being made. */
  preview(edit: Edit): void;
  /** Stores a change. */
  keep(edit: Edit): void;
  /** Stores a change together with those that follow at once. */
  keepSoon(edit: Edit): void;
  /** Removes an item and selects the next one. */
  remove(id: string): void;
  /** The item that the Tab key reaches; null if there is none. */
  entry: string | null;
  /** Moves the focus to the item before (-1) or after (1). */
  pass(id: string, by: number): void;
}

interface Item {
  id: string;
}

/** Everything in which notes and areas differ. */
export interface Kind<T extends Item> {
  name: string; // class of the element
  of(edit: Edit): readonly T[];
  into(edit: Edit, items: T[]): Edit;
  box(item: T, scale: Scale): Box;
  boxed(item: T, box: Box, scale: Scale): T;
  described(item: T): string;
  paint(item: T, element: HTMLElement, label: HTMLElement): void;
  /** Returns the item after a key press, or null for other keys; `fine` scales the step. */
  typed(item: T, key: string, fine: number): T | null;
  /** Returns the item after one step of the wheel. */
  turned(item: T, way: number): T;
  /** Returns whether two items are edited as one. */
  together(a: string, b: string): boolean;
  /** Returns an item after a change of another one that is edited with it. */
  follows(item: T, before: T, after: T): T;
}

/** Returns an edit with one item changed, and those that are edited with it. */
export function altered<T extends Item>(kind: Kind<T>, edit: Edit, id: string, turn: (item: T) => T): Edit {
  const before = kind.of(edit).find((item) => item.id === id);
  if (!before) return edit;
  const after = turn(before);
  return kind.into(edit, kind.of(edit).map((item) => {
    if (item.id === id) return after;
    return kind.together(item.id, id) ? kind.follows(item, before, after) : item;
  }));
}

/** Returns an edit without one item, and those that are edited with it. */
export function without<T extends Item>(kind: Kind<T>, edit: Edit, id: string): Edit {
  return kind.into(edit, kind.of(edit).filter((item) => !kind.together(item.id, id)));
}

const EDGES = ["n", "e", "s", "w", "ne", "nw", "se", "sw"];

export class Blocks<T extends Item> {
  private elements = new Map<string, HTMLElement>();

  constructor(
    private kind: Kind<T>,
    private layer: HTMLElement,
    private scale: Scale,
    private desk: Desk,
  ) {}

  /** Places all boxes. */
  lay(): void {
    const items = this.kind.of(this.desk.edit);
    const present = new Set(items.map((item) => item.id));
    for (const [id, element] of this.elements) {
      if (present.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    for (const item of items) {
      let element = this.elements.get(item.id);
      if (!element) {
        element = this.made(item.id);
        this.elements.set(item.id, element);
        this.layer.append(element);
      }
      const { selected: chosen } = this.desk;
      const selected = chosen !== null && this.kind.together(item.id, chosen);
      this.place(element, this.kind.box(item, this.scale));
      element.classList.toggle("selected", selected);
      element.setAttribute("aria-label", this.kind.described(item));
      element.setAttribute("aria-pressed", String(selected));
      element.tabIndex = this.desk.entry === item.id ? 0 : -1; // one stop of the Tab key for all
      this.kind.paint(item, element, element.firstElementChild as HTMLElement);
    }
  }

  focus(id: string): void {
    this.elements.get(id)?.focus({ preventScroll: true });
  }

  private place(element: HTMLElement, box: Box): void {
    const { scale } = this;
    const left = scale.x(box.start);
    const right = scale.x(box.end);
    const top = Math.max(0, scale.y(box.high));
    const bottom = Math.min(scale.height, scale.y(box.low));
    element.hidden = right < 0 || left > scale.width || bottom < top;
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
    element.style.width = `${Math.max(4, right - left)}px`;
    element.style.height = `${Math.max(4, bottom - top)}px`;
  }

  private made(id: string): HTMLElement {
    const { name } = this.kind;
    const element = h("div", { role: "button", tabindex: "-1", class: `block ${name}`, "data-id": id }, h("span", { class: "gain" }));
    for (const edge of EDGES) element.append(h("i", { class: `grip ${edge}`, "data-edge": edge }));
    element.addEventListener("pointerdown", (event) => this.grab(event, id, element));
    element.addEventListener("focus", () => this.desk.select(id));
    element.addEventListener("keydown", (event) => this.typed(event, id));
    element.addEventListener("wheel", (event) => {
      if (this.desk.selected !== id || !event.altKey) return; // the page scrolls, or the picture zooms
      event.preventDefault();
      event.stopPropagation();
      this.desk.keepSoon(altered(this.kind, this.desk.edit, id, (item) => this.kind.turned(item, -Math.sign(event.deltaY || event.deltaX))));
    });
    return element;
  }

  private item(id: string): T | undefined {
    return this.kind.of(this.desk.edit).find((item) => item.id === id);
  }

  private grab(event: PointerEvent, id: string, element: HTMLElement): void {
    const item = this.item(id);
    if (event.button !== 0 || event.shiftKey || this.layer.dataset.tool !== "move" || !item) return; // the picture draws instead
    event.stopPropagation();
    const edge = (event.target as HTMLElement).dataset.edge ?? "";
    const before = this.kind.box(item, this.scale);
    const from = { x: event.clientX, y: event.clientY };
    element.setPointerCapture(event.pointerId);
    let moved = false;
    const move = (now: PointerEvent) => {
      const dx = now.clientX - from.x;
      const dy = now.clientY - from.y;
      if (!moved && Math.hypot(dx, dy) < 3) return;
      moved = true;
      const box = this.dragged(before, edge, dx, dy);
      this.desk.preview(altered(this.kind, this.desk.edit, id, () => this.kind.boxed(item, box, this.scale)));
    };
    const end = () => {
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", end);
      element.removeEventListener("pointercancel", end);
      if (moved) this.desk.keep(this.desk.edit);
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    this.desk.select(id);
  }

  private dragged(box: Box, edge: string, dx: number, dy: number): Box {
    const { scale } = this;
    const seconds = (scale.end - scale.start) * (dx / scale.width);
    const shift = (hz: number) => Math.max(20, Math.min(scale.high, scale.hz(scale.y(hz) + dy)));
    const out = { ...box };
    if (!edge) {
      out.start += seconds;
      out.end += seconds;
      out.low = shift(box.low);
      out.high = shift(box.high);
      return out;
    }
    if (edge.includes("w")) out.start = Math.min(box.start + seconds, box.end - 0.02);
    if (edge.includes("e")) out.end = Math.max(box.end + seconds, box.start + 0.02);
    if (edge.includes("n")) out.high = Math.max(shift(box.high), box.low + 20);
    if (edge.includes("s")) out.low = Math.min(shift(box.low), box.high - 20);
    return out;
  }

  private typed(event: KeyboardEvent, id: string): void {
    const item = this.item(id);
    if (!item || event.ctrlKey || event.metaKey) return;
    const fine = event.altKey ? 0.2 : 1;
    const arrow = event.key.startsWith("Arrow");
    const made = arrow ? this.arrowed(item, event.key, fine, event.shiftKey) : this.kind.typed(item, event.key, fine);
    if (event.key === "Delete" || event.key === "Backspace") {
      this.desk.remove(id);
    } else if (event.key === "PageDown" || event.key === "PageUp") {
      this.desk.pass(id, event.key === "PageDown" ? 1 : -1);
    } else if (made) this.desk.keepSoon(altered(this.kind, this.desk.edit, id, () => made));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Moves an item by an arrow key, or resizes it around its centre: by 1 % of the visible time, or a semitone. */
  private arrowed(item: T, key: string, fine: number, sizes: boolean): T {
    const { scale } = this;
    const box = this.kind.box(item, scale);
    const way = key === "ArrowRight" || key === "ArrowUp" ? 1 : -1;
    const ratio = 2 ** ((way * fine) / 12);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const by = (way * fine * (scale.end - scale.start)) / 100;
      const least = Math.max(-(box.end - box.start - 0.02), by);
      const [start, end] = sizes ? [-least / 2, least / 2] : [by, by];
      return this.kind.boxed(item, { ...box, start: box.start + start, end: box.end + end }, scale);
    }
    const middle = (box.low + box.high) / 2;
    if (sizes) {
      const half = Math.max(10, Math.min(10_000, ((box.high - box.low) / 2) * ratio));
      return this.kind.boxed(item, { ...box, low: middle - half, high: middle + half }, scale);
    }
    const by = Math.max(scale.low, Math.min(scale.high, middle * ratio)) - middle;
    return this.kind.boxed(item, { ...box, low: box.low + by, high: box.high + by }, scale);
  }
}
