/** Sticky notes and areas on the picture: laid, dragged, resized, by pointer and by keys. */

import type { Area, Edit, Note } from "./api";
import { clock, decibels, h, hertz, icon } from "./dom";
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
  /** Shows a change as it is being made. */
  preview(edit: Edit): void;
  /** Keeps a change. */
  keep(edit: Edit): void;
}

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(36)).join("").slice(0, 10);
}

export function boxOf(note: Note): Box {
  return {
    start: note.seconds - note.width_s / 2,
    end: note.seconds + note.width_s / 2,
    low: Math.max(1, note.hz - note.height_hz / 2),
    high: note.hz + note.height_hz / 2,
  };
}

export function boxed(note: Note, box: Box): Note {
  const tidy = (value: number) => Number(value.toPrecision(6));
  return {
    ...note,
    seconds: tidy(Math.max(0, (box.start + box.end) / 2)),
    hz: tidy((box.low + box.high) / 2),
    width_s: tidy(Math.max(0.02, box.end - box.start)),
    height_hz: tidy(Math.max(20, box.high - box.low)),
  };
}

export function described(note: Note): string {
  const box = boxOf(note);
  const flags = [note.pinned && "pinned", note.muted && "muted"].filter(Boolean).join(", ");
  return (
    `Note of ${decibels(note.gain_db)}, ${clock(Math.max(0, box.start), 2)} to ${clock(box.end, 2)}, ` +
    `${hertz(box.low)} to ${hertz(box.high)}${flags ? `, ${flags}` : ""}`
  );
}

const EDGES = ["n", "e", "s", "w", "ne", "nw", "se", "sw"];

export class Notes {
  private elements = new Map<string, HTMLElement>();
  private areas = new Map<string, HTMLElement>();
  private dragging = false;

  constructor(
    private layer: HTMLElement,
    private scale: Scale,
    private desk: Desk,
  ) {}

  /** Puts every note and area where it belongs. */
  lay(): void {
    const { edit } = this.desk;
    const present = new Set(edit.notes.map((note) => note.id));
    for (const [id, element] of this.elements) {
      if (present.has(id)) continue;
      element.remove();
      this.elements.delete(id);
    }
    for (const note of edit.notes) {
      let element = this.elements.get(note.id);
      if (!element) {
        element = this.made(note.id);
        this.elements.set(note.id, element);
        this.layer.append(element);
      }
      this.place(element, boxOf(note));
      element.classList.toggle("cut", note.gain_db < 0);
      element.classList.toggle("muted", note.muted);
      element.classList.toggle("pinned", note.pinned);
      element.classList.toggle("selected", note.id === this.desk.selected);
      element.setAttribute("aria-label", described(note));
      element.setAttribute("aria-pressed", String(note.id === this.desk.selected));
      element.style.setProperty("--strength", String(Math.min(1, Math.abs(note.gain_db) / 18)));
      const label = element.querySelector(".gain") as HTMLElement;
      label.replaceChildren(...(note.pinned ? [icon("pin")] : []), decibels(note.gain_db));
    }
    this.layAreas();
  }

  focus(id: string): void {
    this.elements.get(id)?.focus({ preventScroll: true });
  }

  private layAreas(): void {
    const { areas } = this.desk.edit;
    const present = new Set(areas.map((area) => area.id));
    for (const [id, element] of this.areas) {
      if (present.has(id)) continue;
      element.remove();
      this.areas.delete(id);
    }
    for (const area of areas) {
      let element = this.areas.get(area.id);
      if (!element) {
        element = h("div", { class: "area" }, h("span", { class: "gain" }));
        this.areas.set(area.id, element);
        this.layer.prepend(element);
      }
      this.place(element, areaBox(area, this.scale));
      (element.firstChild as HTMLElement).textContent = `${Math.round(area.amount * 100)} %`;
    }
  }

  private place(element: HTMLElement, box: Box): void {
    const left = this.scale.x(box.start);
    const right = this.scale.x(box.end);
    const top = Math.max(0, this.scale.y(box.high));
    const bottom = Math.min(this.scale.height, this.scale.y(box.low));
    element.hidden = right < 0 || left > this.scale.width || bottom < top;
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
    element.style.width = `${Math.max(4, right - left)}px`;
    element.style.height = `${Math.max(4, bottom - top)}px`;
  }

  private made(id: string): HTMLElement {
    const element = h("button", { type: "button", class: "note", "data-id": id }, h("span", { class: "gain" }));
    for (const edge of EDGES) element.append(h("i", { class: `grip ${edge}`, "data-edge": edge }));
    element.addEventListener("pointerdown", (event) => this.grab(event, id, element));
    element.addEventListener("focus", () => this.desk.select(id));
    element.addEventListener("keydown", (event) => this.typed(event, id));
    element.addEventListener("wheel", (event) => {
      if (this.desk.selected !== id || event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.change(id, (note) => ({ ...note, gain_db: bounded(note.gain_db - Math.sign(event.deltaY) * 0.5) }));
    });
    return element;
  }

  private note(id: string): Note | undefined {
    return this.desk.edit.notes.find((note) => note.id === id);
  }

  change(id: string, turn: (note: Note) => Note, keep = true): void {
    const edit = {
      ...this.desk.edit,
      notes: this.desk.edit.notes.map((note) => (note.id === id ? turn(note) : note)),
    };
    if (keep) this.desk.keep(edit);
    else this.desk.preview(edit);
  }

  remove(id: string): void {
    this.desk.select(null);
    this.desk.keep({ ...this.desk.edit, notes: this.desk.edit.notes.filter((note) => note.id !== id) });
  }

  private grab(event: PointerEvent, id: string, element: HTMLElement): void {
    if (event.button !== 0) return;
    event.stopPropagation();
    const note = this.note(id);
    if (!note) return;
    const edge = (event.target as HTMLElement).dataset.edge ?? "";
    const before = boxOf(note);
    const from = { x: event.clientX, y: event.clientY };
    element.setPointerCapture(event.pointerId);
    let moved = false;
    const move = (now: PointerEvent) => {
      const dx = now.clientX - from.x;
      const dy = now.clientY - from.y;
      if (!moved && Math.hypot(dx, dy) < 3) return;
      moved = this.dragging = true;
      this.change(id, () => boxed(note, this.dragged(before, edge, dx, dy)), false);
    };
    const end = () => {
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", end);
      element.removeEventListener("pointercancel", end);
      this.dragging = false;
      if (moved) this.desk.keep(this.desk.edit);
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    this.desk.select(id);
  }

  get busy(): boolean {
    return this.dragging;
  }

  private dragged(box: Box, edge: string, dx: number, dy: number): Box {
    const { scale } = this;
    const seconds = (scale.end - scale.start) * (dx / scale.width);
    const shift = (hz: number) => clampHz(scale.hz(scale.y(hz) + dy), scale);
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
    const note = this.note(id);
    if (!note) return;
    const fine = event.altKey ? 0.2 : 1;
    const second = ((this.scale.end - this.scale.start) / 100) * fine;
    const octave = 2 ** (fine / 12);
    const acts: Record<string, () => Note> = event.shiftKey
      ? {
          ArrowLeft: () => ({ ...note, width_s: Math.max(0.02, note.width_s - second) }),
          ArrowRight: () => ({ ...note, width_s: note.width_s + second }),
          ArrowUp: () => ({ ...note, height_hz: Math.min(20000, note.height_hz * octave) }),
          ArrowDown: () => ({ ...note, height_hz: Math.max(20, note.height_hz / octave) }),
        }
      : {
          ArrowLeft: () => ({ ...note, seconds: Math.max(0, note.seconds - second) }),
          ArrowRight: () => ({ ...note, seconds: Math.min(this.scale.duration, note.seconds + second) }),
          ArrowUp: () => ({ ...note, hz: Math.min(this.scale.high, note.hz * octave) }),
          ArrowDown: () => ({ ...note, hz: Math.max(this.scale.low, note.hz / octave) }),
          "+": () => ({ ...note, gain_db: bounded(note.gain_db + fine) }),
          "=": () => ({ ...note, gain_db: bounded(note.gain_db + fine) }),
          "-": () => ({ ...note, gain_db: bounded(note.gain_db - fine) }),
          p: () => ({ ...note, pinned: !note.pinned }),
          m: () => ({ ...note, muted: !note.muted }),
        };
    if (event.shiftKey && event.key === "+") acts["+"] = () => ({ ...note, gain_db: bounded(note.gain_db + fine) });
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      event.stopPropagation();
      this.remove(id);
      return;
    }
    const act = event.ctrlKey || event.metaKey ? undefined : acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    this.change(id, act);
  }
}

export function areaBox(area: Area, scale: Scale): Box {
  return {
    start: area.start_s,
    end: Math.min(area.end_s, scale.duration),
    low: Math.max(area.low_hz, scale.low),
    high: Math.min(area.high_hz, scale.high),
  };
}

export function bounded(db: number): number {
  return Math.max(-30, Math.min(30, Math.round(db * 10) / 10));
}

function clampHz(hz: number, scale: Scale): number {
  return Math.max(20, Math.min(scale.high, hz));
}
