/** Notes and areas on the picture and in the list, with one selection and one edit. */

import type { Area, Edit, Note } from "./api";
import { Blocks, type Box, type Desk } from "./blocks";
import type { Edits } from "./edits";
import { NoteList } from "./notelist";
import { AREAS, boxed, FOREVER_S, newId, NOTES } from "./notes";
import type { Player } from "./player";
import type { Scope } from "./scope";

export class Marks implements Desk {
  readonly list: NoteList;
  selected: string | null = null;
  found = false; // there is a mask
  private notes: Blocks<Note>;
  private areas: Blocks<Area>;

  constructor(
    private edits: Edits,
    private scope: Scope,
    private player: Player,
    again: () => void,
  ) {
    this.areas = new Blocks(AREAS, scope.layer, scope.scale, this);
    this.notes = new Blocks(NOTES, scope.layer, scope.scale, this);
    this.list = new NoteList(this, { addNote: () => this.addNote(), addArea: () => this.addArea(), again });
  }

  get edit(): Edit {
    return this.edits.now;
  }

  lay(): void {
    this.areas.lay();
    this.notes.lay();
    this.list.show(this.found);
  }

  preview(edit: Edit): void {
    this.edits.now = edit;
    this.lay();
  }

  keep(edit: Edit): void {
    this.edits.keep(edit);
    this.lay();
  }

  select(id: string | null): void {
    if (this.selected === id) return;
    this.selected = id;
    this.lay();
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
}
