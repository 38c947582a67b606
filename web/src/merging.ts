/** Joins two edits of the same recording that were made at the same time, note by note. */

import type { Edit } from "./api";

interface Item {
  id: string;
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Returns `theirs` with everything that `mine` changed since `base`. */
export function merged(base: Edit, mine: Edit, theirs: Edit): Edit {
  const shape = same(mine.shape, base.shape) ? theirs.shape : mine.shape;
  const curve = same(mine.curve, base.curve) ? theirs.curve : mine.curve;
  const { shape: _, curve: __, ...rest } = theirs;
  return {
    ...rest,
    ...(shape && { shape }),
    ...(curve && { curve }),
    amount: mine.amount === base.amount ? theirs.amount : mine.amount,
    notes: items(base.notes, mine.notes, theirs.notes),
    areas: items(base.areas, mine.areas, theirs.areas),
  };
}

function items<T extends Item>(base: T[], mine: T[], theirs: T[]): T[] {
  const find = (list: T[], id: string) => list.find((item) => item.id === id);
  const changed = mine.filter((item) => !same(item, find(base, item.id)));
  const kept = theirs.filter((item) => {
    const before = find(base, item.id);
    const removed = before && !find(mine, item.id);
    return !removed || !same(before, item); // a note that they changed stays
  });
  const replaced = kept.map((item) => find(changed, item.id) ?? item);
  return [...replaced, ...changed.filter((item) => !find(replaced, item.id))];
}
