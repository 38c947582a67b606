/** Light or dark colours, or those of the system. */

import { button } from "./dom";

const ORDER = ["", "light", "dark"];
const NAMES: Record<string, string> = { "": "those of the system", light: "light", dark: "dark" };

function kept(): string {
  try {
    return localStorage.getItem("theme") ?? "";
  } catch {
    return "";
  }
}

export function applyTheme(theme = kept()): void {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // a browser may forbid storage
  }
  document.dispatchEvent(new Event("theme"));
}

export function themeButton(): HTMLElement {
  const turn = () => {
    applyTheme(ORDER[(ORDER.indexOf(kept()) + 1) % ORDER.length]);
    element.title = `Colours: ${NAMES[kept()]}`;
  };
  const element = button("Change colours: light or dark", "sun", turn, { bare: true });
  element.title = `Colours: ${NAMES[kept()]}`;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new Event("theme"));
  });
  return element;
}
