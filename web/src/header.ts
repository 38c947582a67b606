/** The header of every page. */

import { button, h, s } from "./dom";
import { showShortcuts } from "./sheet";
import { themeButton } from "./theme";

export function mark(): SVGElement {
  return s(
    "svg",
    { viewBox: "0 0 32 32", class: "mark", "aria-hidden": "true" },
    s("path", { d: "M5 16h1.500M10 11.500v9M15 6.500v19M20 10v12M25 13.500v5M28.500 16h.01" }),
  );
}

export function header(middle: Node[] = [], end: Node[] = []): HTMLElement {
  return h(
    "header",
    { class: "head" },
    h("a", { class: "brand", href: "#/", "aria-label": "Tonewood: all recordings" }, mark() as unknown as HTMLElement, h("span", {}, "Tonewood")),
    h("div", { class: "middle" }, ...middle),
    ...end,
    button("Shortcuts", "help", showShortcuts, { bare: true, title: "Shortcuts (?)" }),
    themeButton(),
  );
}
