/** The results of a batch: a table with scores and players that is filtered and sorted while it grows. */

import { cancel, capital, over, post, trying, type Job, type Session } from "./api";
import { arrange, button, h, icon, say } from "./dom";
import { Progress } from "./progress";

export interface Row {
  name: string;
  state: "waiting" | "running" | "done" | "failed";
  verdict?: string;
  reasons?: string[];
  before?: number;
  after?: number;
  change_db?: number; // size of the change where there is sound
  seconds?: number;
  error?: string;
}

type Order = "name" | "before" | "after";
type Which = "input" | "output";

const FILTERS: [string, string, (row: Row) => boolean][] = [
  ["all", "All", () => true],
  ["good", "Trustworthy", (row) => row.verdict === "good"],
  ["limited", "With care", (row) => row.verdict === "limited"],
  ["refused", "Refused", (row) => row.verdict === "refused"],
  ["unneeded", "Already there", (row) => row.verdict === "unneeded"],
  ["failed", "Failed", (row) => row.state === "failed"],
];
const VERDICTS: Record<string, string> = { good: "trustworthy", limited: "use with care", unneeded: "already there: left unchanged" };
const HEADS: [Order, string][] = [
  ["name", "Recording"],
  ["before", "Before"],
  ["after", "After"],
];

export class Results {
  readonly element = h("section", { class: "results", "aria-label": "Results" });
  private summary = h("p", { role: "status" });
  private progress: Progress;
  private filters = new Map<string, HTMLElement>();
  private heads = new Map<Order, HTMLElement>();
  private body = h("tbody");
  private table = button("CSV", "down", () => this.save(), { class: "small", title: "Save the results as a table" });
  private lines = new Map<number, Line>();
  private audio = h("audio", { preload: "auto" });
  private playing: { row: number; which: Which } | null = null;
  private filter = "all";
  private order: Order = "name";
  private rows: Row[];

  constructor(private job: Job) {
    this.rows = (job.told.rows ?? []) as Row[];
    this.progress = new Progress(() => cancel(this.job));
    this.audio.addEventListener("ended", () => this.silence());
    this.element.append(
      h("div", { class: "row spread" }, this.summary, h("div", { class: "row" }, this.choice(), this.table)),
      this.progress.element,
      h(
        "div",
        { class: "table", tabindex: "0", role: "region", "aria-label": "Recordings" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...HEADS.map((head) => this.head(...head)), ...["Change", "Verdict", "Listen"].map((title) => h("th", { scope: "col" }, title)))),
          this.body,
        ),
      ),
    );
    this.show();
  }

  /** Applies an update of the job: the whole table, or the row that changed. */
  told(job: Job): void {
    this.job = { ...job, told: { ...this.job.told, ...job.told } };
    if (job.told.rows) this.rows = job.told.rows as Row[];
    if (job.told.row && this.known) {
      const [at, row] = job.told.row as [number, Row];
      this.rows[at] = row;
    }
    this.show();
  }

  get known(): boolean {
    return this.rows.length > 0;
  }

  destroy(): void {
    this.audio.pause();
    this.audio.removeAttribute("src");
  }

  private choice(): HTMLElement {
    for (const [name] of FILTERS) {
      this.filters.set(name, h("button", { type: "button", onclick: () => { this.filter = name; this.show(); } }));
    }
    return h("div", { class: "segmented", role: "group", "aria-label": "Filter" }, ...this.filters.values());
  }

  private head(key: Order, title: string): HTMLElement {
    const element = h(
      "th",
      { scope: "col" },
      h("button", { type: "button", class: "link", onclick: () => { this.order = key; this.show(); } }, title),
    );
    this.heads.set(key, element);
    return element;
  }

  private show(): void {
    const { job, rows } = this;
    const done = Number(job.told.done ?? 0);
    this.summary.textContent = summary(job, done, rows.length, rows);
    this.summary.classList.toggle("error", job.state === "failed");
    this.progress.element.hidden = over(job);
    this.progress.tell(rows.length ? "Enhancing …" : "Looking for recordings …", done, rows.length);
    for (const [name, title, wanted] of FILTERS) {
      const element = this.filters.get(name) as HTMLElement;
      element.textContent = `${title} ${rows.filter(wanted).length}`;
      element.setAttribute("aria-pressed", String(name === this.filter));
    }
    for (const [key, element] of this.heads) {
      const sorted = key === "name" ? "ascending" : "descending";
      element.setAttribute("aria-sort", key === this.order ? sorted : "none");
    }
    arrange(this.body, this.shown().map((number) => this.line(number).element));
  }

  /** Returns the numbers of the visible rows in their order. */
  private shown(): number[] {
    const test = FILTERS.find(([name]) => name === this.filter)?.[2] ?? (() => true);
    const numbers = this.rows.map((_, number) => number).filter((number) => test(this.rows[number]));
    const { order } = this;
    if (order !== "name") numbers.sort((a, b) => (this.rows[b][order] ?? -1) - (this.rows[a][order] ?? -1));
    return numbers;
  }

  private line(number: number): Line {
    let line = this.lines.get(number);
    if (!line) this.lines.set(number, (line = new Line(this.rows[number].name, (which) => this.listen(number, which), () => void this.open(number))));
    line.show(this.rows[number], this.playing?.row === number ? this.playing.which : null);
    return line;
  }

  /** Opens a recording in the studio, with the mask of the batch. */
  private async open(row: number): Promise<void> {
    say(`Opening ${this.rows[row].name} …`);
    const session = await trying(() => post<Session>(`/jobs/${this.job.id}/rows/${row}/session`));
    if (session) location.hash = `#/s/${session.id}`;
  }

  /** Saves all rows as a table. */
  private save(): void {
    const heads = ["name", "state", "verdict", "before", "after", "change_db", "reasons", "error"] as const;
    const cell = (value: unknown) => {
      const text = Array.isArray(value) ? value.join("; ") : String(value ?? "");
      // A spreadsheet would take a text that begins like a formula for one.
      const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const lines = this.rows.map((row) => heads.map((head) => cell(row[head])).join(","));
    const url = URL.createObjectURL(new Blob([`${[heads.join(","), ...lines].join("\n")}\n`], { type: "text/csv" }));
    h("a", { href: url, download: "tonewood-results.csv" }).click();
    window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  /** Plays a file; the other file of the same row continues at the same position. */
  private listen(row: number, which: Which): void {
    if (this.playing?.row === row && this.playing.which === which) {
      this.silence();
      return;
    }
    const at = this.playing?.row === row ? this.audio.currentTime : 0;
    this.playing = { row, which };
    this.audio.src = `/api/jobs/${this.job.id}/files/${row}/${which}`;
    this.audio.currentTime = at;
    void this.audio.play().catch((error: Error) => {
      if (error.name === "AbortError") return; // another file was started, or the page closes
      say(`${this.rows[row].name} cannot be played: open the file in another program.`, "error");
      this.silence();
    });
    this.show();
  }

  private silence(): void {
    this.audio.pause();
    this.playing = null;
    this.show();
  }
}

/** A row of the table. */
class Line {
  readonly element: HTMLElement;
  private before = new Score("Before");
  private after = new Score("After");
  private verdict = h("span", { class: "tag" });
  private why = h("p", { class: "why", hidden: true });
  private players: Record<Which, HTMLButtonElement>;
  private change = h("td", { class: "figure", "data-label": "Change" }, "–");
  private opener: HTMLButtonElement;

  constructor(private name: string, play: (which: Which) => void, open: () => void) {
    this.opener = button("Open", null, open, { class: "small", "aria-label": `Open ${name} in the studio` });
    this.players = {
      input: button("Original", "play", () => play("input"), { class: "small" }),
      output: button("Enhanced", "play", () => play("output"), { class: "small" }),
    };
    this.element = h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      this.before.element,
      this.after.element,
      this.change,
      h("td", { class: "judged" }, this.verdict, this.why),
      h("td", {}, h("div", { class: "players" }, this.players.input, this.players.output, this.opener)),
    );
  }

  show(row: Row, playing: Which | null): void {
    this.before.show(row.before);
    this.after.show(row.after);
    const waits = row.state === "running" ? "running …" : "waiting";
    const kind = row.state === "failed" ? "refused" : (row.verdict ?? "");
    this.verdict.textContent = row.state === "failed" ? (row.error ?? "failed") : (VERDICTS[row.verdict ?? ""] ?? row.verdict ?? waits);
    this.verdict.className = `tag ${kind}`;
    this.why.hidden = !row.reasons?.length;
    this.why.textContent = row.reasons?.length ? `${capital(row.reasons.join("; "))}.` : "";
    this.change.textContent = row.change_db === undefined ? "–" : `${row.change_db.toFixed(1)} dB`;
    this.players.output.hidden = this.opener.hidden = row.state !== "done";
    for (const [which, title] of [["input", "original"], ["output", "enhanced"]] as const) {
      const element = this.players[which];
      const on = playing === which;
      if (element.getAttribute("aria-pressed") === String(on)) continue;
      element.setAttribute("aria-pressed", String(on));
      element.setAttribute("aria-label", `${on ? "Stop" : "Play"} ${title} of ${this.name}`);
      element.firstElementChild?.replaceWith(icon(on ? "pause" : "play"));
    }
  }
}

class Score {
  private bar = h("i", { class: "mini", "aria-hidden": "true", hidden: true }, h("i", {}));
  private figure = h("span", {}, "–");
  readonly element: HTMLElement;

  constructor(label: string) {
    this.element = h("td", { class: "figure", "data-label": label }, this.bar, this.figure);
  }

  show(score: number | undefined): void {
    this.bar.hidden = score === undefined;
    if (score === undefined) return;
    (this.bar.firstChild as HTMLElement).style.left = `${score * 100}%`;
    this.figure.textContent = score.toFixed(2);
  }
}

function summary(job: Job, done: number, of: number, rows: Row[]): string {
  if (job.state === "failed") return capital(String(job.told.error));
  if (!over(job)) return `${done} of ${of || "…"} done`;
  const failed = Number(job.told.failed ?? 0);
  const there = rows.filter((row) => row.verdict === "unneeded").length;
  const told = [`${done - failed} of ${of || done} ${job.state === "done" ? "done" : `done, then ${job.state}`}`];
  if (failed) told.push(`${failed} failed`);
  if (there) told.push(`${there} already there, left unchanged`);
  return told.join(", ");
}
