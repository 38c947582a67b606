/** Pitches: note names of frequencies, open strings of instruments, and the keys of a piano. */

import { h } from "./dom";
import type { Scale } from "./scale";

const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const BLACK = new Set([1, 3, 6, 8, 10]);

/** Open strings as MIDI numbers; 69 is A4, 440 Hz. */
export const STRINGS: Record<string, number[]> = {
  cello: [36, 43, 50, 57],
  viola: [48, 55, 62, 69],
  violin: [55, 62, 69, 76],
  bass: [28, 33, 38, 43],
  guitar: [40, 45, 50, 55, 59, 64],
};

export const hzOf = (midi: number): number => 440 * 2 ** ((midi - 69) / 12);
const midiOf = (hz: number): number => 69 + 12 * Math.log2(hz / 440);
const nameOf = (midi: number): string => `${NAMES[((midi % 12) + 12) % 12]}${Math.floor(midi / 12) - 1}`;

/** Returns the nearest note and the distance from it, such as "D♯4 +43 ct". */
export function pitch(hz: number): string {
  const midi = Math.round(midiOf(hz));
  const cents = Math.round(100 * (midiOf(hz) - midi));
  return `${nameOf(midi)} ${cents < 0 ? "−" : "+"}${Math.abs(cents)} ct`;
}

/** Returns the labels of a pitch axis: open strings first, then the notes that have room. */
export function noteLabels(scale: Scale, instrument: string): { hz: number; name: string; open: boolean }[] {
  const open = new Set(STRINGS[instrument] ?? []);
  const octave = Math.abs(scale.y(100) - scale.y(200));
  const wanted = octave > 250 ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] : octave > 90 ? [0, 4, 7] : [0];
  const all = Array.from({ length: 124 }, (_, n) => n + 12)
    .filter((midi) => open.has(midi) || wanted.includes(midi % 12))
    .map((midi) => ({ hz: hzOf(midi), name: nameOf(midi), open: open.has(midi) }))
    .filter(({ hz }) => scale.shows(hz));
  const labels: typeof all = [];
  for (const label of [...all.filter((it) => it.open), ...all.filter((it) => !it.open)]) {
    if (labels.every((other) => Math.abs(scale.y(other.hz) - scale.y(label.hz)) >= 15)) labels.push(label);
  }
  return labels;
}

/** Draws the keys of a piano along the axis. */
export function keys(scale: Scale): HTMLElement[] {
  if (Math.abs(scale.y(100) - scale.y(200)) < 36) return [];
  return Array.from({ length: 124 }, (_, n) => n + 12)
    .filter((midi) => BLACK.has(midi % 12) && scale.shows(hzOf(midi)))
    .map((midi) => {
      const top = scale.y(hzOf(midi + 0.5));
      const key = h("i", { class: "key" });
      key.style.top = `${top}px`;
      key.style.height = `${scale.y(hzOf(midi - 0.5)) - top}px`;
      return key;
    });
}
