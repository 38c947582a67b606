/** What stands beside the picture: certificate, notes, average EQ, what is taken away. */

import { get, type Area, type Certificate, type Change, type Formats, type Note, type Session } from "./api";
import { button, clock, decibels, h, hertz, icon, s } from "./dom";
import { boxOf, bounded, described, type Desk } from "./notes";
import type { Scale } from "./scale";

export function card(title: string, ...content: (Node | false | null)[]): HTMLElement {
  const id = `card-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h(
    "section",
    { class: "card", "aria-labelledby": id },
    h("h2", { id }, title),
    ...content,
  );
}

/** Where input and output lie between the two folders. */
function meter(name: string, change: Change): HTMLElement {
  const text = `${name}: ${change.before.toFixed(2)} before, ${change.after.toFixed(2)} after; 0 is the reference, 1 the source`;
  const before = h("i", { class: "dot before" });
  const after = h("i", { class: "dot after" });
  const path = h("i", { class: "path" });
  before.style.left = `${change.before * 100}%`;
  after.style.left = `${change.after * 100}%`;
  path.style.left = `${Math.min(change.before, change.after) * 100}%`;
  path.style.width = `${Math.abs(change.before - change.after) * 100}%`;
  return h(
    "div",
    { class: "meter", role: "img", "aria-label": text },
    h("span", { class: "name" }, name),
    h("div", { class: "track" }, path, before, after),
    h("span", { class: "figure" }, `${change.before.toFixed(2)} → ${change.after.toFixed(2)}`),
  );
}

const SIGNS: Record<string, string> = { good: "check", caution: "warn", refused: "warn", plain: "info" };

export function certificateCard(certificate: Certificate | null, anyway: () => void): HTMLElement {
  if (!certificate) {
    return card(
      "Certificate",
      h("p", { class: "quiet" }, "Once the recording is enhanced, this says whether to believe the change, and why."),
    );
  }
  const { heading } = certificate;
  const details = h("details", {}, h("summary", {}, "What was examined"));
  details.append(
    h(
      "ul",
      { class: "statements" },
      ...certificate.statements.map((it) =>
        h("li", { class: it.kind }, icon(SIGNS[it.kind]), h("div", {}, h("strong", {}, it.title), h("p", {}, it.text))),
      ),
    ),
  );
  const refused = certificate.verdict === "refused";
  if (certificate.verdict !== "good") details.open = true;
  return card(
    "Certificate",
    h(
      "div",
      { class: `verdict ${certificate.verdict}` },
      icon(SIGNS[heading.kind]),
      h("div", {}, h("strong", {}, heading.title), h("p", {}, heading.text)),
    ),
    h(
      "div",
      { class: "meters" },
      h("div", { class: "ends" }, h("span", {}, "reference"), h("span", {}, "source")),
      meter("Scorer", certificate.scorer),
      certificate.judge && meter("Judge", certificate.judge),
    ),
    !certificate.current &&
      h("p", { class: "quiet" }, "Of the mask as it was found; your own changes are being examined …"),
    refused && button("Enhance anyway", null, anyway),
    details,
  );
}

export function notesCard(desk: Desk, tools: NoteTools): HTMLElement {
  const { notes, areas } = desk.edit;
  const list = h("ul", { class: "notes" });
  for (const note of notes) list.append(noteRow(note, desk, tools));
  for (const area of areas) list.append(areaRow(area, desk));
  return card(
    "Notes and areas",
    notes.length + areas.length === 0
      ? h(
          "p",
          { class: "quiet" },
          "A note is a block of gain of your own. An area turns the found mask up or down. Choose ",
          h("b", {}, "Note"),
          " or ",
          h("b", {}, "Area"),
          " and draw on the picture, or use the buttons below.",
        )
      : list,
    h(
      "div",
      { class: "row" },
      button("Add a note", "plus", tools.add, { class: "small" }),
      button("Add an area", "plus", tools.addArea, { class: "small" }),
      notes.length > 0 &&
        tools.again && button("Search again", "loop", tools.again, { class: "small", title: "Keeps pinned notes, finds the rest anew" }),
    ),
  );
}

export interface NoteTools {
  add(): void;
  addArea(): void;
  again: (() => void) | null;
  change(id: string, turn: (note: Note) => Note, keep: boolean): void;
  remove(id: string): void;
}

function noteRow(note: Note, desk: Desk, tools: NoteTools): HTMLElement {
  const box = boxOf(note);
  const where = `${clock(Math.max(0, box.start), 1)}–${clock(box.end, 1)}, ${hertz(box.low)}–${hertz(box.high)}`;
  const figure = h("output", {}, decibels(note.gain_db));
  const slider = h("input", {
    type: "range",
    min: "-24",
    max: "24",
    step: "0.5",
    value: String(note.gain_db),
    "aria-label": `Gain of the note at ${where}`,
    oninput: () => {
      figure.textContent = decibels(Number(slider.value));
      tools.change(note.id, (it) => ({ ...it, gain_db: bounded(Number(slider.value)) }), false);
    },
    onchange: () => tools.change(note.id, (it) => ({ ...it, gain_db: bounded(Number(slider.value)) }), true),
  });
  const flip = (flag: "pinned" | "muted") => () =>
    tools.change(note.id, (it) => ({ ...it, [flag]: !it[flag] }), true);
  return h(
    "li",
    { class: note.id === desk.selected ? "selected" : "", "data-note": note.id },
    h(
      "div",
      { class: "line" },
      h("button", { type: "button", class: "link", title: described(note), onclick: () => desk.select(note.id) }, where),
      button("Pin: kept when searching again", "pin", flip("pinned"), {
        bare: true,
        "aria-pressed": String(note.pinned),
      }),
      button("Mute", "mute", flip("muted"), { bare: true, "aria-pressed": String(note.muted) }),
      button("Delete", "trash", () => tools.remove(note.id), { bare: true }),
    ),
    h("div", { class: "line" }, slider, figure),
  );
}

function areaRow(area: Area, desk: Desk): HTMLElement {
  const whole = area.end_s > 80_000 ? "all of it" : `${clock(area.start_s, 1)}–${clock(area.end_s, 1)}`;
  const where = `Area: ${whole}, ${hertz(Math.max(20, area.low_hz))}–${hertz(area.high_hz)}`;
  const figure = h("output", {}, `${Math.round(area.amount * 100)} %`);
  const changed = (turn: (area: Area) => Area) => ({
    ...desk.edit,
    areas: desk.edit.areas.map((it) => (it.id === area.id ? turn(it) : it)),
  });
  const slider = h("input", {
    type: "range",
    min: "0",
    max: "2",
    step: "0.05",
    value: String(area.amount),
    "aria-label": `Amount in ${where}`,
    oninput: () => {
      figure.textContent = `${Math.round(Number(slider.value) * 100)} %`;
      desk.preview(changed((it) => ({ ...it, amount: Number(slider.value) })));
    },
    onchange: () => desk.keep(changed((it) => ({ ...it, amount: Number(slider.value) }))),
  });
  return h(
    "li",
    {},
    h(
      "div",
      { class: "line" },
      h("span", { class: "link" }, where),
      button("Delete", "trash", () => desk.keep({ ...desk.edit, areas: desk.edit.areas.filter((it) => it.id !== area.id) }), {
        bare: true,
      }),
    ),
    h("div", { class: "line" }, slider, figure),
  );
}

interface Take {
  name: string;
  what: string;
  path: string;
  needsFound: boolean;
}

const TAKES: Take[] = [
  { name: "Recipe", what: "renders it again, exactly", path: "recipe", needsFound: true },
  { name: "Picture", what: "before, mask and after", path: "picture", needsFound: true },
  { name: "Certificate", what: "all figures, as JSON", path: "certificate", needsFound: true },
  { name: "Session", what: "reopens here, or anywhere", path: "session", needsFound: false },
];

export function takeCard(session: Session, formats: Formats): HTMLElement {
  const own = session.sound.suffix || ".wav";
  const select = h(
    "select",
    { "aria-label": "Format of the audio" },
    ...(formats.sounds.length ? formats.sounds : [own]).map((suffix) => h("option", { value: suffix, selected: suffix === own }, suffix.slice(1))),
  );
  const audio = h("a", { class: "button primary", download: "" }, icon("down"), h("span", {}, "Audio"));
  const aim = () => audio.setAttribute("href", `/api/sessions/${session.id}/take/audio?format=${select.value.slice(1)}`);
  select.addEventListener("change", aim);
  aim();
  const found = session.state.found !== null;
  const equalisers = formats.equalisers.map(({ name, title }) => ({
    name: title,
    what: "for another program",
    path: `equaliser/${name}`,
    needsFound: true,
  }));
  return card(
    "Take away",
    h("div", { class: "row" }, audio, select),
    h(
      "ul",
      { class: "takes" },
      ...[...TAKES, ...equalisers].filter((take) => found || !take.needsFound).map((take) =>
        h(
          "li",
          {},
          h("a", { href: `/api/sessions/${session.id}/take/${take.path}`, download: "" }, take.name),
          h("span", { class: "quiet" }, take.what),
        ),
      ),
    ),
  );
}

interface Curve {
  hz: number[];
  mean: number[];
  low: number[];
  high: number[];
}

/** The average EQ, upright beside the picture so that its frequencies are the picture's. */
export class AverageEq {
  readonly element: HTMLElement;
  private plot = s("svg", { preserveAspectRatio: "none", role: "img" });
  private curve: Curve | null = null;

  constructor(private scale: Scale) {
    this.element = h("figure", { class: "average" }, h("figcaption", {}, "Average EQ"), this.plot as unknown as HTMLElement);
  }

  async load(session: Session): Promise<void> {
    this.curve = await get<Curve>(`/sessions/${session.id}/curve?axis=${this.scale.axis}`);
  }

  draw(amount: number): void {
    const { scale, curve } = this;
    const height = scale.height;
    const width = this.plot.clientWidth || 110;
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!curve) return;
    const most = Math.max(6, ...curve.low.map(Math.abs), ...curve.high.map(Math.abs)) * Math.max(amount, 0.05);
    const reach = Math.min(30, Math.ceil(Math.max(6, most) / 6) * 6);
    const x = (db: number) => width / 2 + (Math.max(-reach, Math.min(reach, db)) / reach) * (width / 2 - 6);
    const at = (values: number[]) => values.map((db, n) => `${x(db * amount).toFixed(1)},${scale.y(curve.hz[n]).toFixed(1)}`);
    const extreme = curve.mean.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0) * amount;
    const where = curve.hz[curve.mean.findIndex((db) => db * amount === extreme)] ?? 0;
    this.plot.setAttribute(
      "aria-label",
      `Average gain by frequency; the largest is ${decibels(extreme)} at ${hertz(where)}`,
    );
    this.plot.replaceChildren(
      ...scale.ticks().map((hz) => s("line", { class: "grid", x1: 0, x2: width, y1: scale.y(hz), y2: scale.y(hz) })),
      s("line", { class: "zero", x1: width / 2, x2: width / 2, y1: 0, y2: height }),
      s("polygon", { class: "band", points: [...at(curve.low), ...at(curve.high).reverse()].join(" ") }),
      s("polyline", { class: "mean", points: at(curve.mean).join(" ") }),
      s("text", { x: 4, y: height - 6 }, `−${reach}`),
      s("text", { x: width - 4, y: height - 6, "text-anchor": "end" }, `+${reach} dB`),
    );
  }
}
