/** The page that trains a model: two folders, their audit, the training. */

import { cancel, capital, get, Listening, over, post, trying, type Job } from "./api";
import { arrange, button, h, icon, s, say } from "./dom";
import { header } from "./header";
import { placeField, type Chosen } from "./places";
import { Progress } from "./progress";

interface Point {
  who: "scorer" | "judge";
  step: number;
  of: number;
  accuracy: number;
  loss: number;
}

const VERDICTS: Record<string, [string, string]> = {
  fine: ["good", "Only the sound distinguishes these folders"],
  beware: ["limited", "Check this before you train"],
  confounded: ["refused", "Something other than the instrument distinguishes these folders"],
  untested: ["limited", "Too few recordings to distinguish a pattern from chance"],
};

export class TrainPage {
  readonly element = h("main", { class: "train" });
  private reference: Chosen | null = null;
  private source: Chosen | null = null;
  private name = h("input", { id: "name", type: "text", maxlength: "80", autocomplete: "off", placeholder: "my cello" });
  private domain = h("input", { id: "domain", type: "text", maxlength: "200", autocomplete: "off", placeholder: "solo cello, dry studio" });
  private audit: Job | null = null;
  private training: Job | null = null;
  private checkButton = button("Check the folders", null, () => void this.check(), { disabled: true });
  private trainButton = button("Train", null, () => void this.train(), { class: "primary", disabled: true });
  private auditing = new Progress(() => cancel(this.audit));
  private learning = new Progress(() => cancel(this.training));
  private auditSlot = h("div", { class: "slot", role: "status" });
  private trainSlot = h("div", { class: "slot" });
  private listening: Listening;

  private saved = h("p", { class: "quiet small" });

  constructor() {
    document.title = "Train a sound · Tonewood";
    this.name.addEventListener("input", () => this.enable());
    this.name.value = remembered<string>("name") ?? "";
    this.domain.value = remembered<string>("domain") ?? "";
    this.domain.addEventListener("input", () => remember("domain", this.domain.value));
    this.reference = remembered<Chosen>("reference");
    this.source = remembered<Chosen>("source");
    this.element.append(
      header(),
      h(
        "div",
        { class: "column" },
        h("a", { href: "#/", class: "back" }, icon("back"), "All recordings"),
        h("h1", {}, "Train a sound"),
        h("p", { class: "lead" }, "Two folders with at least a minute of recordings each. The music may differ; room, microphone and player should be the same."),
        h(
          "ol",
          { class: "steps" },
          h(
            "li",
            {},
            h("h2", {}, "Choose two folders"),
            placeField("Reference folder", "The sound you want.", (place) => this.chose("reference", place), this.reference),
            placeField("Source folder", "The sound you have.", (place) => this.chose("source", place), this.source),
          ),
          h("li", {}, h("h2", {}, "Check the folders"), h("p", { class: "quiet" }, "Level, noise, bandwidth, hum or a codec may differ between the folders, too. The model would then learn that difference."), this.checkButton, this.auditSlot),
          h(
            "li",
            {},
            h("h2", {}, "Train"),
            h("div", { class: "fields" }, field("Name", this.name, this.saved), field("Purpose", this.domain)),
            this.trainButton,
            this.trainSlot,
          ),
        ),
      ),
    );
    this.enable();
    this.listening = new Listening(null, (job) => this.told(job), () => void this.back());
    void this.resume();
  }

  destroy(): void {
    this.listening.close();
  }

  private async resume(): Promise<void> {
    const jobs = await trying(() => get<Job[]>("/jobs"));
    performance.mark("page-ready");
    const training = jobs?.find((job) => job.kind === "train" && ["running", "queued"].includes(job.state));
    if (training) this.told((this.training = training));
  }

  /** The server is reachable again; its jobs may be lost. */
  private async back(): Promise<void> {
    for (const job of [this.audit, this.training]) {
      const now = job && !over(job) && (await trying(() => get<Job>(`/jobs/${job.id}`)));
      if (now) this.told(now);
    }
  }

  private chose(side: "reference" | "source", place: Chosen): void {
    this[side] = place;
    remember(side, place);
    this.audit = null;
    this.auditSlot.replaceChildren();
    this.enable();
  }

  private enable(): void {
    const both = this.reference && this.source;
    remember("name", this.name.value);
    // The name as the server makes a file name of it.
    const file = this.name.value.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 40);
    this.saved.textContent = file && file !== this.name.value ? `Saved as ${file}` : "";
    this.checkButton.disabled = !both;
    this.trainButton.disabled = !both || this.audit?.state !== "done" || !this.name.value.trim();
  }

  private async check(): Promise<void> {
    const body = { reference: this.reference?.id, source: this.source?.id };
    const job = await trying(() => post<Job>("/audits", body));
    if (job) this.told((this.audit = this.listening.latest(job)));
  }

  private async train(): Promise<void> {
    const body = {
      reference: this.reference?.id,
      source: this.source?.id,
      name: this.name.value.trim(),
      domain: this.domain.value.trim(),
    };
    const job = await trying(() => post<Job>("/trainings", body));
    if (job) this.told((this.training = this.listening.latest(job)));
  }

  private told(job: Job): void {
    if (job.id === this.audit?.id) this.showAudit((this.audit = job));
    if (job.id === this.training?.id) this.showTraining((this.training = job));
    this.enable();
  }

  private showAudit(job: Job): void {
    const { told } = job;
    if (job.state === "failed") {
      this.auditSlot.replaceChildren(h("p", { class: "error" }, capital(String(told.error))));
      return;
    }
    if (!over(job)) {
      const text = told.of ? `Listening to the ${told.phase} folder: ${told.number} of ${told.of}` : queued(job);
      this.auditing.tell(text, told.number, told.of);
      arrange(this.auditSlot, [this.auditing.element]);
      return;
    }
    if (job.state !== "done") {
      this.auditSlot.replaceChildren(h("p", { class: "quiet" }, "The check was cancelled or interrupted: check the folders again."));
      return;
    }
    const [kind, title] = VERDICTS[job.told.verdict as string];
    this.auditSlot.replaceChildren(
      h(
        "div",
        { class: `verdict ${kind}` },
        icon(kind === "good" ? "check" : "warn"),
        h(
          "div",
          {},
          h("strong", {}, title),
          ...[...(told.summary as string[]), ...(told.warnings as string[])].map((line) => h("p", {}, `${capital(line)}.`)),
        ),
      ),
    );
  }

  private showTraining(job: Job): void {
    const { told } = job;
    if (job.state === "failed") {
      this.trainSlot.replaceChildren(h("p", { class: "error", role: "status" }, capital(String(told.error))));
      return;
    }
    const parts: HTMLElement[] = [];
    if (job.state === "done") {
      parts.push(
        h(
          "div",
          { class: "verdict good", role: "status" },
          icon("check"),
          h(
            "div",
            {},
            h("strong", {}, `${told.model} is ready`),
            h("p", {}, `It distinguishes the two sounds in ${Math.round(told.accuracy * 100)} % of the excerpts from held-out recordings (${Math.round(told.interval[0] * 100)} to ${Math.round(told.interval[1] * 100)}).`),
            h("a", { href: "#/" }, "Open a recording"),
          ),
        ),
      );
    } else if (job.state === "cancelled") say("Cancelled; no model was saved.");
    else if (!over(job)) {
      const phase: Record<string, string> = {
        listening: `Listening to the ${told.side} folder: ${told.number} of ${told.of}`,
        loading: `Reading the ${told.side} folder: ${told.number} of ${told.of}`,
        scorer: "Training the match score: telling the two sounds apart",
        judge: "Training the second opinion",
        masks: "Preparing the starting EQ",
        predictor: `Training the predictor: ${told.number} of ${told.of}`,
      };
      this.learning.tell(phase[told.phase] ?? queued(job));
      parts.push(this.learning.element);
    } else parts.push(h("p", { class: "error", role: "status" }, "The studio was stopped before the training was complete: train the model again."));
    if (told.curve?.length) parts.push(curve(told.curve as Point[]));
    arrange(this.trainSlot, parts);
  }
}

function queued(job: Job): string {
  return job.ahead ? `Queued (${job.ahead} ahead)` : "Starting …";
}

function field(label: string, input: HTMLInputElement, hint?: HTMLElement): HTMLElement {
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint);
}

/** Keeps a choice until the browser's tab is closed, so that a reload does not lose it. */
function remember(name: string, value: unknown): void {
  try {
    sessionStorage.setItem(`train-${name}`, JSON.stringify(value));
  } catch {
    // a browser may forbid storage
  }
}

function remembered<T>(name: string): T | null {
  try {
    return JSON.parse(sessionStorage.getItem(`train-${name}`) ?? "null") as T | null;
  } catch {
    return null;
  }
}

/** Draws the held-out accuracy of scorer and judge. */
function curve(points: Point[]): HTMLElement {
  const [width, height, left, foot] = [640, 190, 44, 26];
  const most = Math.max(...points.map((point) => point.of));
  const x = (step: number) => left + (step / most) * (width - left - 110);
  const y = (accuracy: number) => 10 + (1 - (accuracy - 0.4) / 0.6) * (height - foot - 10);
  const lines: SVGElement[] = [0.5, 0.75, 1].flatMap((share) => [
    s("line", { class: "grid", x1: left, x2: width - 110, y1: y(share), y2: y(share) }),
    s("text", { x: left - 8, y: y(share) + 4, "text-anchor": "end" }, `${share * 100} %`),
  ]);
  const told: string[] = [];
  const names = { scorer: "match score", judge: "second opinion" };
  for (const who of ["scorer", "judge"] as const) {
    const mine = points.filter((point) => point.who === who);
    const last = mine[mine.length - 1];
    if (!last) continue;
    told.push(`${names[who]} ${Math.round(last.accuracy * 100)} %`);
    lines.push(
      s("polyline", { class: `line ${who}`, points: mine.map((p) => `${x(p.step)},${y(Math.max(0.4, p.accuracy))}`).join(" ") }),
      s("circle", { class: `end ${who}`, cx: x(last.step), cy: y(Math.max(0.4, last.accuracy)), r: 3.5 }),
      s("text", { class: who, x: x(last.step) + 8, y: y(Math.max(0.4, last.accuracy)) + (who === "judge" ? 18 : 2) }, names[who]),
    );
  }
  lines.push(s("text", { x: left, y: height - 6 }, "0 steps"), s("text", { x: width - 110, y: height - 6, "text-anchor": "end" }, String(most)));
  return h(
    "figure",
    { class: "curve" },
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Accuracy on held-out recordings: ${told.join(", ")}` }, ...lines) as unknown as HTMLElement,
    h("figcaption", { class: "quiet" }, "Accuracy on recordings that are not used for training; 50 % is chance."),
  );
}
