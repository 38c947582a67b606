/** The choice of what gets a mask of its own in the next search. */

import type { Link, Session } from "./api";
import { h } from "./dom";

/** Returns the choice, or null for recordings with one channel. */
export function linkChoice({ sound: { channels }, state }: Session): HTMLSelectElement | null {
  if (channels === 1) return null;
  const names: [Link, string][] = [
    ["all", "One mask"],
    ["mid-side", "Mid and side"],
    ["off", channels === 2 ? "Left and right" : "Each channel"],
  ];
  return h(
    "select",
    { "aria-label": "Masks", title: "What gets a mask of its own in the next search" },
    ...names
      .filter(([link]) => link !== "mid-side" || channels === 2)
      .map(([value, name]) => h("option", { value, selected: value === state.link }, name)),
  );
}

/** Names a component in the page. */
export function componentTitle(name: string, count: number): string {
  if (name === "mid" || name === "side") return name === "mid" ? "Mid" : "Side";
  return count === 2 ? ["Left", "Right"][Number(name)] : String(Number(name) + 1);
}
