/** Functions that create elements. */

type Child = Node | string | null | undefined | false;
type Props = Record<string, unknown>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  apply(element, props);
  element.append(...(children.filter((child) => child != null && child !== false) as Node[]));
  return element;
}

export function s(tag: string, props: Props = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  apply(element, props);
  element.append(...(children.filter(Boolean) as Node[]));
  return element;
}

/** Sets the children and their order. A child in its place is not moved, because that would cancel a click on it. */
export function arrange(parent: Element, wanted: Node[]): void {
  const kept = new Set(wanted);
  for (const child of [...parent.childNodes]) if (!kept.has(child)) child.remove();
  wanted.forEach((child, at) => {
    const there = parent.childNodes[at] ?? null;
    if (there !== child) parent.insertBefore(child, there);
  });
}

function apply(element: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value as EventListener);
    else if (element instanceof HTMLElement && name in element && typeof value !== "string") {
      (element as never)[name] = value as never;
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
}

const ICONS: Record<string, string> = {
  play: "M7 4.5v15l12-7.500z",
  pause: "M7 5h3.500v14H7zM13.500 5H17v14h-3.500z",
  loop: "M17 3l3 3-3 3M4 11V9a3 3 0 0 1 3-3h13M7 21l-3-3 3-3M20 13v2a3 3 0 0 1-3 3H4",
  undo: "M8 5L4 9l4 4M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "M16 5l4 4-4 4M20 9H10a6 6 0 0 0 0 12h3",
  hand: "M5 12h14M12 5v14M5 12l3-3M5 12l3 3M19 12l-3-3M19 12l-3 3",
  note: "M4 7h16v10H4zM8 12h8M12 8.500v7",
  area: "M4 4h4M4 4v4M20 4h-4M20 4v4M4 20h4M4 20v-4M20 20h-4M20 20v-4M9 12h6",
  pin: "M12 14v7M8 4h8l-1 6 3 4H6l3-4z",
  mute: "M4 10v4h3l5 4V6l-5 4zM16 9.500l5 5M21 9.500l-5 5",
  volume: "M4 10v4h3l5 4V6l-5 4zM15.500 9.500a4 4 0 0 1 0 5M18 7a8 8 0 0 1 0 10",
  trash: "M5 7h14M10 4h4M7 7l1 13h8l1-13",
  down: "M12 4v12M7 11l5 5 5-5M5 20h14",
  folder: "M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z",
  mic: "M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM6 11a6 6 0 0 0 12 0M12 17v4",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M5 19l1.500-1.500M17.500 6.500L19 5",
  close: "M6 6l12 12M18 6L6 18",
  back: "M15 5l-7 7 7 7",
  check: "M5 12.500l4.500 4.500L19 7.500",
  info: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17zM12 11v5M12 8v.01",
  warn: "M12 4l9 16H3zM12 10v5M12 17.500v.01",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  range: "M4 5v14M20 5v14M8 12h8M8 12l2.500-2.500M8 12l2.500 2.500M16 12l-2.500-2.500M16 12l-2.500 2.500",
  whole: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  help: "M9 9a3 3 0 1 1 4.500 2.600c-1 .600-1.500 1.200-1.500 2.400M12 17.500v.01M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17z",
  dash: "M7 12h10",
  pencil: "M4 20l1-4L16 5l3 3L8 19z",
  harmonics: "M4 19h16M6 14h12M8 9h8M10 4h4",
  solo: "M4 14v-2a8 8 0 0 1 16 0v2M4 14h3v6H4zM17 14h3v6h-3z",
  school: "M3 9l9-4 9 4-9 4zM7 11v5c3 2 7 2 10 0v-5",
};
const FILLED = new Set(["play", "pause"]);

export function icon(name: string): SVGElement {
  const solid = FILLED.has(name);
  return s(
    "svg",
    { viewBox: "0 0 24 24", class: solid ? "icon solid" : "icon", "aria-hidden": "true" },
    s("path", { d: ICONS[name] }),
  );
}

export function button(label: string, glyph: string | null, act: () => void, props: Props = {}) {
  const bare = glyph && props.bare;
  delete props.bare;
  const element: HTMLButtonElement = h(
    "button",
    {
      type: "button",
      ...(bare ? { "aria-label": label, title: props.title ?? label } : {}),
      ...props,
      class: `button ${bare ? "bare" : ""} ${props.class ?? ""}`,
      onclick: () => {
        // After a click, the space bar plays; after focus by keyboard, it presses the button.
        if (!element.matches(":focus-visible")) element.blur();
        act();
      },
    },
    glyph && icon(glyph),
    !bare && h("span", {}, label),
  );
  return element;
}

/** A section of the side panel. */
export function card(title: string, ...content: (Node | false | null)[]): HTMLElement {
  const id = `card-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), ...content);
}

/** Returns the present value of a CSS colour variable. */
export function inked(name: string): string {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

let toastTimer = 0;

interface Offer {
  name: string;
  act(): void;
  lasts_ms: number;
}

/** Shows a line at the bottom of the page; errors stay longer, and so does one with a button. */
export function say(text: string, kind: "plain" | "error" = "plain", offer?: Offer): void {
  let toast = document.querySelector<HTMLElement>(".toast");
  if (!toast) document.body.append((toast = h("div", { class: "toast", role: "status" })));
  const hide = () => toast.classList.remove("shown");
  const act = () => {
    hide();
    offer?.act();
  };
  toast.replaceChildren(text, ...(offer ? [h("button", { type: "button", class: "link", onclick: act }, offer.name)] : []));
  toast.dataset.kind = kind;
  toast.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(hide, offer?.lasts_ms ?? (kind === "error" ? 9000 : 3500));
}

export function clock(seconds: number, digits = 1): string {
  const at = Math.max(0, seconds);
  const hours = Math.floor(at / 3600);
  const minutes = Math.floor((at % 3600) / 60);
  const rest = (at % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function hertz(hz: number): string {
  return hz >= 1000 ? `${(hz / 1000).toFixed(hz >= 10000 ? 1 : 2)} kHz` : `${Math.round(hz)} Hz`;
}

/** Returns a range of frequencies with one unit where that is possible. */
export function band(low: number, high: number): string {
  return low < 1000 && high < 1000 ? `${Math.round(low)}–${hertz(high)}` : `${hertz(low)}–${hertz(high)}`;
}

export function decibels(db: number, digits = 1): string {
  const rounded = Number(db.toFixed(digits));
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : ""}${Math.abs(rounded).toFixed(digits)} dB`;
}
