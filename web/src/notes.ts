/** Notes (blocks of gain) and areas (which scale the mask) as boxes on the picture. */

import type { Area, Note } from "./api";
import type { Box, Kind } from "./blocks";
import { clock, decibels, hertz, icon } from "./dom";

const tidy = (value: number) => Number(value.toPrecision(6));

export const FOREVER_S = 86_400; // an area that ends here has no end
const TOP_HZ = 20_000;

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A harmonic has the id of its note, "h" and its number; ids of notes are hexadecimal. */
export const harmonicId = (id: string, number: number): string => `${groupOf(id)}h${number}`;
export const groupOf = (id: string): string => id.replace(/h\d+$/, "");

const MOST_HARMONICS = 10;

/** Returns a note as a band around a partial, and its harmonics up to a frequency. */
export function harmonicsOf(note: Note, hz: number, top: number): Note[] {
  const height_hz = tidy(Math.max(20, Math.min(note.height_hz, hz * 0.4)));
  const count = Math.max(1, Math.min(MOST_HARMONICS, Math.floor((Math.min(top, TOP_HZ) - height_hz / 2) / hz)));
  return Array.from({ length: count }, (_, n) => ({
    ...note,
    id: n ? harmonicId(note.id, n + 1) : note.id,
    hz: tidy(hz * (n + 1)),
    height_hz,
  }));
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
  return {
    ...note,
    seconds: tidy(Math.max(0, (box.start + box.end) / 2)),
    hz: tidy(Math.min(TOP_HZ, (box.low + box.high) / 2)),
    width_s: tidy(Math.max(0.02, box.end - box.start)),
    height_hz: tidy(Math.min(TOP_HZ, Math.max(20, box.high - box.low))),
  };
}

export function bounded(db: number): number {
  return Math.max(-30, Math.min(30, Math.round(db * 10) / 10));
}

export function percent(share: number): string {
  const whole = Math.round(share * 1000) / 10;
  return `${whole < 0 ? "−" : ""}${Math.abs(whole)} %`;
}

function described(note: Note): string {
  const box = boxOf(note);
  const flags = [note.pinned && "pinned", note.muted && "muted"].filter(Boolean).join(", ");
  return (
    `Note of ${decibels(note.gain_db)}, ${clock(Math.max(0, box.start), 2)} to ${clock(box.end, 2)}, ` +
    `${hertz(box.low)} to ${hertz(box.high)}${flags ? `, ${flags}` : ""}`
  );
}

/** Describes the position of an area. */
export function whereabouts(area: Area): string {
  const whole = area.end_s >= FOREVER_S ? "all of it" : `${clock(area.start_s, 1)}–${clock(area.end_s, 1)}`;
  return `${whole}, ${hertz(Math.max(20, area.low_hz))}–${hertz(area.high_hz)}`;
}

export const NOTES: Kind<Note> = {
  name: "note",
  of: (edit) => edit.notes,
  into: (edit, notes) => ({ ...edit, notes }),
  box: boxOf,
  boxed,
  described,
  paint(note, element, label) {
    element.classList.toggle("harmonic", groupOf(note.id) !== note.id);
    element.classList.toggle("cut", note.gain_db < 0);
    element.classList.toggle("muted", note.muted);
    element.classList.toggle("pinned", note.pinned);
    element.style.setProperty("--strength", String(Math.min(1, Math.abs(note.gain_db) / 18)));
    label.replaceChildren(...(note.pinned ? [icon("pin")] : []), decibels(note.gain_db));
  },
  typed(note, key, fine) {
    if (key === "+" || key === "=") return { ...note, gain_db: bounded(note.gain_db + fine) };
    if (key === "-") return { ...note, gain_db: bounded(note.gain_db - fine) };
    if (key === "p") return { ...note, pinned: !note.pinned };
    if (key === "m") return { ...note, muted: !note.muted };
    return null;
  },
  turned: (note, way) => ({ ...note, gain_db: bounded(note.gain_db + way * 0.5) }),
  together: (a, b) => groupOf(a) === groupOf(b),
  follows: (note, before, after) => ({
    ...after,
    id: note.id,
    hz: tidy(Math.min(TOP_HZ, (note.hz * after.hz) / before.hz)),
  }),
};

const scaled = (area: Area, by: number): Area => ({
  ...area,
  amount: Math.round(Math.max(0, Math.min(2, area.amount + by)) * 100) / 100,
});

export const AREAS: Kind<Area> = {
  name: "area",
  of: (edit) => edit.areas,
  into: (edit, areas) => ({ ...edit, areas }),
  box: (area, scale) => ({
    start: area.start_s,
    end: Math.min(area.end_s, scale.duration),
    low: Math.max(area.low_hz, scale.low),
    high: Math.min(area.high_hz, scale.high),
  }),
  boxed: (area, box, scale) => ({
    ...area,
    start_s: tidy(Math.max(0, Math.min(box.start, scale.duration - 0.02))),
    end_s: box.end >= scale.duration - 1e-3 ? FOREVER_S : tidy(Math.max(box.end, 0.02)),
    low_hz: box.low <= scale.low * 1.001 ? 0 : tidy(Math.min(box.low, TOP_HZ - 20)),
    high_hz: tidy(Math.min(TOP_HZ, Math.max(box.high, 20))),
  }),
  described: (area) => `Area at ${percent(area.amount)}, ${whereabouts(area)}`,
  paint(area, _element, label) {
    label.textContent = percent(area.amount);
  },
  typed(area, key, fine) {
    if (key === "+" || key === "=") return scaled(area, 0.05 * fine);
    if (key === "-") return scaled(area, -0.05 * fine);
    return null;
  },
  turned: (area, way) => scaled(area, way * 0.05),
  together: (a, b) => a === b,
  follows: (area) => area,
};
