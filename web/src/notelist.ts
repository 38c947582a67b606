/** The list of notes and areas. Its rows stay the same elements while an edit is stored. */

import type { Area, Edit, Note } from "./api";
import { altered, type Desk, type Kind } from "./blocks";
import { arrange, band, button, card, clock, decibels, h } from "./dom";
import { AREAS, bounded, boxOf, groupOf, NOTES, percent, whereabouts } from "./notes";
import { parsePercent, Slider } from "./slider";

interface Acts {
  addNote(): void;
  addArea(): void;
  harmonics(id: string): void;
  solo(id: string): void;
}

interface ListDesk extends Desk {
  soloed: string | null;
}

export class NoteList {
  readonly element: HTMLElement;
  private hint = h(
    "p",
    { class: "quiet" },
    "A note is your own boost or cut. An area scales the automatic EQ. Choose ",
    h("b", {}, "Note"),
    " or ",
    h("b", {}, "Area"),
    " and draw on the picture, or use the buttons below.",
  );
  private list = h("ul", { class: "notes" });
  private rows = new Map<string, NoteRow | AreaRow>();
  private add: HTMLButtonElement;

  constructor(
    private desk: ListDesk,
    private acts: Acts,
  ) {
    this.add = button("Add a note", "plus", acts.addNote, { class: "small" });
    this.element = card(
      "Notes and areas",
      this.hint,
      this.list,
      h("div", { class: "row" }, this.add, button("Add an area", "plus", acts.addArea, { class: "small" })),
    );
  }

  show(): void {
    const { notes, areas } = this.desk.edit;
    this.hint.hidden = notes.length + areas.length > 0;
    const heads = notes.filter((note) => groupOf(note.id) === note.id || !notes.some((it) => it.id === groupOf(note.id)));
    const shown = [
      ...heads.map((note) => {
        const harmonics = notes.filter((it) => groupOf(it.id) === groupOf(note.id)).length - 1;
        return this.row(note.id, () => new NoteRow(note.id, this.desk, this.acts)).show(note, harmonics);
      }),
      ...areas.map((area) => this.row(area.id, () => new AreaRow(area.id, this.desk, this.acts)).show(area)),
    ];
    arrange(this.list, shown);
    const present = new Set([...heads, ...areas].map((item) => item.id));
    for (const id of this.rows.keys()) if (!present.has(id)) this.rows.delete(id);
    for (const [id, row] of this.rows) {
      row.element.classList.toggle("selected", this.desk.selected !== null && groupOf(id) === groupOf(this.desk.selected));
      row.soloed = id === this.desk.soloed;
    }
  }

  focus(): void {
    this.add.focus({ preventScroll: true });
  }

  private row<R extends NoteRow | AreaRow>(id: string, make: () => R): R {
    let row = this.rows.get(id) as R | undefined;
    if (!row) this.rows.set(id, (row = make()));
    return row;
  }
}

interface Range {
  min: number;
  max: number;
  step: number;
  reset: number;
  label: string;
  text(value: number): string;
  parse?(text: string): number;
}

/** A row with a name, buttons, a slider and its value. */
abstract class Row<T extends Note | Area> {
  readonly element: HTMLElement;
  protected name: HTMLButtonElement;
  protected slider: Slider;
  private hear: HTMLButtonElement;

  constructor(
    private id: string,
    private desk: Desk,
    private kind: Kind<T>,
    acts: Acts,
    range: Range,
    ...more: HTMLElement[]
  ) {
    this.name = h("button", { type: "button", class: "link", onclick: () => desk.reveal(id) });
    this.slider = new Slider(range, {
      turned: (value) => this.desk.preview(this.slid(value)),
      kept: (value) => this.desk.keep(this.slid(value)),
    });
    this.hear = button("Solo: hear only this", "solo", () => acts.solo(id), { bare: true, "aria-pressed": "false" });
    const away = button("Delete", "trash", () => desk.remove(id), { bare: true });
    this.element = h(
      "li",
      {},
      h("div", { class: "line" }, this.name, this.hear, ...more, away),
      h("div", { class: "line" }, this.slider.input, this.slider.figure),
    );
  }

  set soloed(on: boolean) {
    this.hear.setAttribute("aria-pressed", String(on));
  }

  protected abstract turned(item: T, value: number): T;

  protected told(where: string, title: string, label: string, value: number): HTMLElement {
    this.name.textContent = where;
    this.name.title = title;
    this.slider.show(value, label);
    return this.element;
  }

  private slid(value: number): Edit {
    return altered(this.kind, this.desk.edit, this.id, (item) => this.turned(item, value));
  }
}

class NoteRow extends Row<Note> {
  private pin: HTMLButtonElement;
  private mute: HTMLButtonElement;
  private harmonics: HTMLButtonElement;

  constructor(id: string, desk: Desk, acts: Acts) {
    const flip = (flag: "pinned" | "muted") => () =>
      desk.keep(altered(NOTES, desk.edit, id, (note) => ({ ...note, [flag]: !note[flag] })));
    const harmonics = button("Harmonics: edit them with this note", "harmonics", () => acts.harmonics(id), { bare: true });
    const pin = button("Pin", "pin", flip("pinned"), { bare: true });
    const mute = button("Mute", "mute", flip("muted"), { bare: true });
    const range = { min: -30, max: 30, step: 0.1, reset: 0, label: "Gain", text: decibels };
    super(id, desk, NOTES, acts, range, harmonics, pin, mute);
    this.element.dataset.note = id;
    this.pin = pin;
    this.mute = mute;
    this.harmonics = harmonics;
  }

  show(note: Note, harmonics: number): HTMLElement {
    const box = boxOf(note);
    const place = `${clock(Math.max(0, box.start), 1)}–${clock(box.end, 1)}, ${band(box.low, box.high)}`;
    const where = harmonics ? `${place}, ${harmonics} harmonic${harmonics === 1 ? "" : "s"}` : place;
    this.pin.setAttribute("aria-pressed", String(note.pinned));
    this.mute.setAttribute("aria-pressed", String(note.muted));
    this.harmonics.setAttribute("aria-pressed", String(harmonics > 0));
    return this.told(where, NOTES.described(note), `Gain of the note at ${where}`, note.gain_db);
  }

  protected turned(note: Note, value: number): Note {
    return { ...note, gain_db: bounded(value) };
  }
}

class AreaRow extends Row<Area> {
  constructor(id: string, desk: Desk, acts: Acts) {
    super(id, desk, AREAS, acts, { min: 0, max: 2, step: 0.05, reset: 1, label: "Amount", text: percent, parse: parsePercent });
  }

  show(area: Area): HTMLElement {
    const where = `Area: ${whereabouts(area)}`;
    return this.told(where, AREAS.described(area), `Amount in ${where}`, area.amount);
  }

  protected turned(area: Area, value: number): Area {
    return { ...area, amount: value };
  }
}
