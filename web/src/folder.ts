/** A whole folder: enhanced take by take, scored, compared by ear. */

import { ask, capital, get, listen, post, trying, type Job, type ModelCard } from "./api";
import { button, h, icon } from "./dom";
import { header } from "./header";
import { counted, placeField, type Chosen } from "./places";

interface Row {
  name: string;
  state: "waiting" | "running" | "done" | "failed";
  verdict?: string;
  reasons?: string[];
  before?: number;
  after?: number;
  seconds?: number;
  error?: string;
}

const FILTERS: [string, string, (row: Row) => boolean][] = [
  ["all", "All", () => true],
  ["good", "Good", (row) => row.verdict === "good"],
  ["limited", "Limited", (row) => row.verdict === "limited"],
  ["refused", "Refused", (row) => row.verdict === "refused"],
  ["failed", "Failed", (row) => row.state === "failed"],
];

export class FolderPage {
  readonly element = h("main", { class: "folder" });
  private input: Chosen | null = null;
  private output: Chosen | null = null;
  private model = h("select", { id: "model" });
  private into = h("input", { id: "into", type: "text", maxlength: "80", value: "enhanced", autocomplete: "off" });
  private amount = h("input", { id: "amount", type: "range", min: "0", max: "1", step: "0.05", value: "1" });
  private start = button("Enhance the folder", null, () => void this.begin(), { class: "primary", disabled: true });
  private results = h("section", { class: "results", "aria-label": "Results" });
  private audio = h("audio", { preload: "auto" });
  private playing: { row: number; which: string } | null = null;
  private filter = "all";
  private order: "name" | "after" | "before" = "name";
  private job: Job | null = null;
  private rows: Row[] = [];
  private stop: () => void;

  constructor() {
    document.title = "A whole folder · Tonewood";
    const figure = h("output", { for: "amount" }, "100 %");
    this.amount.addEventListener("input", () => {
      figure.textContent = `${Math.round(Number(this.amount.value) * 100)} %`;
      this.amount.style.setProperty("--share", `${Number(this.amount.value) * 100}%`);
    });
    this.amount.style.setProperty("--share", "100%");
    this.audio.addEventListener("ended", () => this.silence());
    this.element.append(
      header(),
      h(
        "div",
        { class: "column wide" },
        h("a", { href: "#/", class: "back" }, icon("back"), "All recordings"),
        h("h1", {}, "A whole folder"),
        h("p", { class: "lead" }, "Every recording below it is enhanced into another folder, which keeps its tree, with a recipe beside each. Nothing is overwritten."),
        h(
          "div",
          { class: "panel" },
          placeField("Folder of recordings", "What is to be enhanced.", (place) => {
            this.input = place;
            this.into.value = `${place.name} enhanced`;
            this.enable();
          }),
          placeField("Where to", "The new folder is made in this one.", (place) => {
            this.output = place;
            this.enable();
          }),
          h(
            "div",
            { class: "fields" },
            h("div", { class: "field" }, h("label", { for: "into" }, "New folder"), this.into),
            h("div", { class: "field" }, h("label", { for: "model" }, "Model"), this.model),
            h("div", { class: "field" }, h("label", { for: "amount" }, "Amount"), h("div", { class: "row" }, this.amount, figure)),
          ),
          this.start,
        ),
        this.results,
      ),
    );
    void get<ModelCard[]>("/models").then((models) =>
      this.model.replaceChildren(...models.map((model) => h("option", { value: model.name }, model.name))),
    );
    this.stop = listen(null, (job) => this.told(job));
    void this.resume();
  }

  destroy(): void {
    this.stop();
    this.audio.pause();
  }

  private async resume(): Promise<void> {
    const jobs = await trying(() => get<Job[]>("/jobs"));
    performance.mark("page-ready");
    const last = jobs?.find((job) => job.kind === "batch");
    if (last && !this.job) this.take(last);
  }

  private enable(): void {
    this.start.disabled = !this.input || !this.output;
  }

  private async begin(): Promise<void> {
    const job = await trying(() =>
      post<Job>("/batches", {
        input: this.input?.id,
        output: this.output?.id,
        into: this.into.value.trim(),
        model: this.model.value,
        amount: Number(this.amount.value),
      }),
    );
    if (job) this.take(job);
  }

  private take(job: Job): void {
    this.job = job;
    this.rows = (job.told.rows ?? []) as Row[];
    this.show();
  }

  private told(job: Job): void {
    if (job.id !== this.job?.id) return;
    this.job = { ...job, told: { ...this.job.told, ...job.told } };
    if (job.told.row) {
      const [at, row] = job.told.row as [number, Row];
      this.rows[at] = row;
    }
    if (!this.rows.length || job.state !== "running") {
      void trying(() => get<Job>(`/jobs/${job.id}`)).then((whole) => whole && this.take(whole));
    } else this.show();
  }

  private show(): void {
    const { job } = this;
    if (!job) return;
    const over = !["queued", "running"].includes(job.state);
    const done = Number(job.told.done ?? 0);
    const summary =
      job.state === "failed"
        ? capital(String(job.told.error))
        : over
          ? `${counted(done)} ${job.state === "done" ? "done" : job.state}${job.told.failed ? `, of which ${job.told.failed} failed` : ""}`
          : `${done} of ${this.rows.length || "…"} done`;
    const test = FILTERS.find(([name]) => name === this.filter)?.[2] ?? (() => true);
    const shown = this.rows.map((row, number) => ({ row, number })).filter(({ row }) => test(row));
    if (this.order !== "name") {
      const key = this.order;
      shown.sort((a, b) => (b.row[key] ?? -1) - (a.row[key] ?? -1));
    }
    this.results.replaceChildren(
      h(
        "div",
        { class: "row spread" },
        h("p", { role: "status", class: job.state === "failed" ? "error" : "" }, summary),
        h(
          "div",
          { class: "segmented", role: "group", "aria-label": "Filter" },
          ...FILTERS.map(([name, title, wanted]) =>
            h(
              "button",
              { type: "button", "aria-pressed": String(name === this.filter), onclick: () => { this.filter = name; this.show(); } },
              `${title} ${this.rows.filter(wanted).length}`,
            ),
          ),
        ),
        !over && button("Cancel", "close", () => void trying(() => ask("DELETE", `/jobs/${job.id}`)), { class: "small" }),
      ),
      !over ? h("progress", { max: Math.max(1, this.rows.length), value: done, "aria-label": "Recordings done" }) : "",
      h(
        "div",
        { class: "table", tabindex: "0", role: "region", "aria-label": "Recordings" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, this.head("Recording", "name"), this.head("Before", "before"), this.head("After", "after"), h("th", { scope: "col" }, "Verdict"), h("th", { scope: "col" }, "Listen"))),
          h("tbody", {}, ...shown.map(({ row, number }) => this.row(row, number))),
        ),
      ),
    );
  }

  private head(title: string, key: "name" | "after" | "before"): HTMLElement {
    const sorted = this.order === key;
    return h(
      "th",
      { scope: "col", "aria-sort": sorted ? (key === "name" ? "ascending" : "descending") : "none" },
      h("button", { type: "button", class: "link", onclick: () => { this.order = key; this.show(); } }, title),
    );
  }

  private row(row: Row, number: number): HTMLElement {
    const score = (value?: number) =>
      value === undefined ? h("td", { class: "figure" }, "–") : h("td", { class: "figure" }, bar(value), value.toFixed(2));
    const verdict =
      row.state === "failed"
        ? h("span", { class: "tag refused" }, row.error ?? "failed")
        : row.verdict
          ? h("span", { class: `tag ${row.verdict}`, title: row.reasons?.join("; ") ?? "" }, row.verdict)
          : h("span", { class: "tag" }, row.state === "running" ? "at work …" : "waiting");
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, row.name),
      score(row.before),
      score(row.after),
      h("td", {}, verdict),
      h(
        "td",
        {},
        h(
          "div",
          { class: "players" },
          this.player(number, row, "input", "Original"),
          row.state === "done" && this.player(number, row, "output", "Enhanced"),
        ),
      ),
    );
  }

  private player(number: number, row: Row, which: string, title: string): HTMLElement {
    const on = this.playing?.row === number && this.playing.which === which;
    return button(title, on ? "pause" : "play", () => this.listen(number, which), {
      class: "small",
      "aria-label": `${on ? "Stop" : "Play"} ${title.toLowerCase()} of ${row.name}`,
      "aria-pressed": String(on),
    });
  }

  /** Plays a file; the other one of the same row goes on from the same place. */
  private listen(row: number, which: string): void {
    if (this.playing?.row === row && this.playing.which === which) {
      this.silence();
      return;
    }
    const at = this.playing?.row === row ? this.audio.currentTime : 0;
    this.playing = { row, which };
    this.audio.src = `/api/jobs/${this.job?.id}/files/${row}/${which}`;
    this.audio.currentTime = at;
    void this.audio.play();
    this.show();
  }

  private silence(): void {
    this.audio.pause();
    this.playing = null;
    this.show();
  }
}

function bar(score: number): HTMLElement {
  const element = h("i", { class: "mini", "aria-hidden": "true" }, h("i", {}));
  (element.firstChild as HTMLElement).style.left = `${score * 100}%`;
  return element;
}
