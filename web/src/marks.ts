/** Notes and areas on the picture and in the list, with one selection and one edit. */

import type { Area, Edit, Note } from "./api";
import { Blocks, without, type Box, type Desk } from "./blocks";
import { say } from "./dom";
import type { Edits } from "./edits";
import { NoteList } from "./notelist";
import { AREAS, boxed, boxOf, FOREVER_S, groupOf, harmonicsOf, newId, NOTES } from "./notes";
import type { Player } from "./player";
import type { Scope } from "./scope";

export class Marks implements Desk {
  readonly list: NoteList;
  selected: string | null = null;
  soloed: string | null = null; // only this item is heard
  private notes: Blocks<Note>;
  private areas: Blocks<Area>;

  constructor(
    private edits: Edits,
    private scope: Scope,
    private player: Player,
    private soloing: (box: Box | null) => void,
  ) {
    this.areas = new Blocks(AREAS, scope.layer, scope.scale, this);
    this.notes = new Blocks(NOTES, scope.layer, scope.scale, this);
    this.list = new NoteList(this, {
      addNote: () => this.addNote(),
      addArea: () => this.addArea(),
      harmonics: (id) => this.harmonics(id),
      solo: (id) => this.solo(this.soloed === id ? null : id),
    });
  }

  get edit(): Edit {
    return this.edits.now;
  }

  lay(): void {
    this.areas.lay();
    this.notes.lay();
    this.list.show();
    if (this.soloed && !this.boxOf(this.soloed)) this.solo(null);
  }

  preview(edit: Edit): void {
    this.edits.now = edit;
    this.changed();
  }

  keep(edit: Edit): void {
    this.edits.keep(edit);
    this.changed();
  }

  keepSoon(edit: Edit): void {
    this.edits.keepSoon(edit);
    this.changed();
  }

  /** The edit is another one: it is heard and drawn. */
  changed(): void {
    this.player.preview(this.edits.now);
    this.lay();
  }

  select(id: string | null): void {
    if (this.selected === id) return;
    this.selected = id;
    this.lay();
  }

  get entry(): string | null {
    const { notes, areas } = this.edit;
    const present = [...notes, ...areas].some((item) => item.id === this.selected);
    return present ? this.selected : (notes[0]?.id ?? areas[0]?.id ?? null);
  }

  pass(id: string, by: number): void {
    const ids = this.order(id);
    this.reveal(ids[(ids.indexOf(id) + by + ids.length) % ids.length]);
  }

  /** Returns the ids of all notes and areas; of harmonics, that of the first, or `id`. */
  private order(id: string): string[] {
    const { notes, areas } = this.edit;
    return [...notes, ...areas].map((item) => item.id).filter((it) => (groupOf(it) === groupOf(id) ? it === id : groupOf(it) === it));
  }

  /** Removes an item; the focus goes to the next one. */
  remove(id: string): void {
    const { notes } = this.edit;
    const ids = this.order(id);
    const rest = ids.filter((it) => groupOf(it) !== groupOf(id));
    const next = rest[Math.min(ids.indexOf(id), rest.length - 1)] ?? null;
    const isNote = notes.some((note) => note.id === id);
    this.selected = next;
    this.keep(isNote ? without(NOTES, this.edit, id) : without(AREAS, this.edit, id));
    if (next) this.reveal(next);
    else this.list.focus();
  }

  reveal(id: string): void {
    this.select(id);
    const { notes, areas } = this.edit;
    const { scale } = this.scope;
    const note = notes.find((it) => it.id === id);
    const area = areas.find((it) => it.id === id);
    const start = note ? note.seconds : (area?.start_s ?? 0);
    const end = note ? note.seconds : (area?.end_s ?? 0);
    if (end < scale.start || start > scale.end) {
      scale.move(start - (scale.end - scale.start) / 2);
      this.scope.moved();
    }
    (note ? this.notes : this.areas).focus(id);
  }

  /** Adds a note where it was drawn, or at the playback position. */
  addNote(box?: Box): void {
    const { scale } = this.scope;
    const { position } = this.player;
    const at = position >= scale.start && position <= scale.end ? position : scale.start;
    const end = Math.min(scale.duration, at + Math.max(0.3, (scale.end - scale.start) / 8));
    const id = newId();
    const blank = { id, seconds: 0, hz: 0, width_s: 0, height_hz: 0, gain_db: 6, pinned: false, muted: false };
    const note = boxed(blank, box ?? { start: at, end, low: 700, high: 1400 });
    this.selected = id;
    this.keep({ ...this.edit, notes: [...this.edit.notes, note] });
    this.notes.focus(id);
  }

  /** Adds an area where it was drawn, or a band over the whole recording. */
  addArea(box?: Box): void {
    const { scale } = this.scope;
    const id = newId();
    const band = { id, start_s: 0, end_s: FOREVER_S, low_hz: 2000, high_hz: Math.min(20_000, scale.high), amount: 0.5 };
    this.selected = id;
    this.keep({ ...this.edit, areas: [...this.edit.areas, box ? AREAS.boxed(band, box, scale) : band] });
    this.areas.focus(id);
  }

  /** Adds the harmonics of a note's loudest partial, or removes them. They are edited as one note. */
  harmonics(id: string): void {
    const { notes } = this.edit;
    const note = notes.find((it) => it.id === id);
    if (!note) return;
    const others = notes.filter((it) => groupOf(it.id) !== id);
    if (notes.length - others.length > 1) {
      this.keep({ ...this.edit, notes: [...others, note] });
      return;
    }
    const found = harmonicsOf(note, this.scope.partial(boxOf(note)) ?? note.hz, this.scope.scale.high);
    if (found.length === 1) say("This note has no harmonics below the highest frequency.");
    else this.keep({ ...this.edit, notes: [...others, ...found] });
  }

  /** Plays only the time and the frequencies of an item. */
  solo(id: string | null): void {
    if (this.soloed === id) return;
    this.soloed = id;
    this.soloing(id ? this.boxOf(id) : null);
    this.list.show();
  }

  private boxOf(id: string): Box | null {
    const note = this.edit.notes.find((it) => it.id === id);
    if (note) return boxOf(note);
    const area = this.edit.areas.find((it) => it.id === id);
    return area ? AREAS.box(area, this.scope.scale) : null;
  }
}
