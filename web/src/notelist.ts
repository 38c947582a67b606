/** The list of notes and areas. Its rows stay the same elements while an edit is stored. */

import type { Area, Edit, Note } from "./api";
import { altered, without, type Desk, type Kind } from "./blocks";
import { arrange, button, card, clock, decibels, h, hertz } from "./dom";
import { AREAS, bounded, boxOf, NOTES, percent, whereabouts } from "./notes";

interface Acts {
  addNote(): void;
  addArea(): void;
  again(): void;
}

export class NoteList {
  readonly element: HTMLElement;
  private hint = h(
    "p",
    { class: "quiet" },
    "A note adds a block of gain. An area scales the mask. Choose ",
    h("b", {}, "Note"),
    " or ",
    h("b", {}, "Area"),
    " and draw on the picture, or use the buttons below.",
  );
  private list = h("ul", { class: "notes" });
  private rows = new Map<string, NoteRow | AreaRow>();
  private again: HTMLButtonElement;

  constructor(
    private desk: Desk,
    acts: Acts,
  ) {
    this.again = button("Search again", "loop", acts.again, { class: "small", title: "Searches a new mask and keeps the pinned notes" });
    this.element = card(
      "Notes and areas",
      this.hint,
      this.list,
      h(
        "div",
        { class: "row" },
        button("Add a note", "plus", acts.addNote, { class: "small" }),
        button("Add an area", "plus", acts.addArea, { class: "small" }),
        this.again,
      ),
    );
  }

  show(found: boolean): void {
    const { notes, areas } = this.desk.edit;
    this.hint.hidden = notes.length + areas.length > 0;
    this.again.hidden = !found || notes.length === 0;
    const shown = [
      ...notes.map((note) => this.row(note.id, () => new NoteRow(note.id, this.desk)).show(note)),
      ...areas.map((area) => this.row(area.id, () => new AreaRow(area.id, this.desk)).show(area)),
    ];
    arrange(this.list, shown);
    const present = new Set([...notes, ...areas].map((item) => item.id));
    for (const id of this.rows.keys()) if (!present.has(id)) this.rows.delete(id);
    this.select();
  }

  select(): void {
    for (const [id, row] of this.rows) row.element.classList.toggle("selected", id === this.desk.selected);
  }

  private row<R extends NoteRow | AreaRow>(id: string, make: () => R): R {
    let row = this.rows.get(id) as R | undefined;
    if (!row) this.rows.set(id, (row = make()));
    return row;
  }
}

/** A row with a name, buttons, a slider and its value. */
abstract class Row<T extends Note | Area> {
  readonly element: HTMLElement;
  protected name: HTMLButtonElement;
  protected slider: HTMLInputElement;
  protected figure = h("output", {});

  constructor(
    private id: string,
    private desk: Desk,
    private kind: Kind<T>,
    range: Record<string, string>,
    ...more: HTMLElement[]
  ) {
    this.name = h("button", { type: "button", class: "link", onclick: () => desk.reveal(id) });
    this.slider = h("input", { type: "range", ...range });
    this.slider.addEventListener("input", () => this.desk.preview(this.slid()));
    this.slider.addEventListener("change", () => this.desk.keep(this.slid()));
    const away = button("Delete", "trash", () => desk.keep(without(kind, desk.edit, id)), { bare: true });
    this.element = h("li", {}, h("div", { class: "line" }, this.name, ...more, away), h("div", { class: "line" }, this.slider, this.figure));
  }

  abstract show(item: T): HTMLElement;
  protected abstract turned(item: T, value: number): T;

  protected told(where: string, title: string, label: string, value: number, figure: string): HTMLElement {
    this.name.textContent = where;
    this.name.title = title;
    this.slider.setAttribute("aria-label", label);
    this.slider.setAttribute("aria-valuetext", figure);
    if (Number(this.slider.value) !== value) this.slider.value = String(value);
    this.figure.textContent = figure;
    return this.element;
  }

  private slid(): Edit {
    return altered(this.kind, this.desk.edit, this.id, (item) => this.turned(item, Number(this.slider.value)));
  }
}

class NoteRow extends Row<Note> {
  private pin: HTMLButtonElement;
  private mute: HTMLButtonElement;

  constructor(id: string, desk: Desk) {
    const flip = (flag: "pinned" | "muted") => () =>
      desk.keep(altered(NOTES, desk.edit, id, (note) => ({ ...note, [flag]: !note[flag] })));
    const pin = button("Pin: kept when searching again", "pin", flip("pinned"), { bare: true });
    const mute = button("Mute", "mute", flip("muted"), { bare: true });
    super(id, desk, NOTES, { min: "-30", max: "30", step: "0.1" }, pin, mute);
    this.element.dataset.note = id;
    this.pin = pin;
    this.mute = mute;
  }

  show(note: Note): HTMLElement {
    const box = boxOf(note);
    const where = `${clock(Math.max(0, box.start), 1)}–${clock(box.end, 1)}, ${hertz(box.low)}–${hertz(box.high)}`;
    this.pin.setAttribute("aria-pressed", String(note.pinned));
    this.mute.setAttribute("aria-pressed", String(note.muted));
    return this.told(where, NOTES.described(note), `Gain of the note at ${where}`, note.gain_db, decibels(note.gain_db));
  }

  protected turned(note: Note, value: number): Note {
    return { ...note, gain_db: bounded(value) };
  }
}

class AreaRow extends Row<Area> {
  constructor(id: string, desk: Desk) {
    super(id, desk, AREAS, { min: "0", max: "2", step: "0.05" });
  }

  show(area: Area): HTMLElement {
    const where = `Area: ${whereabouts(area)}`;
    return this.told(where, AREAS.described(area), `Amount in ${where}`, area.amount, percent(area.amount));
  }

  protected turned(area: Area, value: number): Area {
    return { ...area, amount: value };
  }
}
