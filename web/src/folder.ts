/** The page that enhances a folder, with scores and players. */

import { get, Listening, over, post, trying, type Job, type ModelCard } from "./api";
import { button, h, icon } from "./dom";
import { header } from "./header";
import { placeField, type Chosen } from "./places";
import { Results } from "./results";

export class FolderPage {
  readonly element = h("main", { class: "folder" });
  private input: Chosen | null = null;
  private output: Chosen | null = null;
  private model = h("select", { id: "model" });
  private into = h("input", { id: "into", type: "text", maxlength: "80", value: "enhanced", autocomplete: "off" });
  private amount = h("input", { id: "amount", type: "range", min: "0", max: "1", step: "0.05", value: "1" });
  private start = button("Enhance the folder", null, () => void this.begin(), { class: "primary", disabled: true });
  private slot = h("div");
  private job: Job | null = null;
  private results: Results | null = null;
  private listening: Listening;

  constructor() {
    document.title = "Enhance a folder · Tonewood";
    const figure = h("output", { for: "amount" }, "100 %");
    this.amount.addEventListener("input", () => {
      figure.textContent = `${Math.round(Number(this.amount.value) * 100)} %`;
      this.amount.style.setProperty("--share", `${Number(this.amount.value) * 100}%`);
    });
    this.amount.style.setProperty("--share", "100%");
    this.element.append(
      header(),
      h(
        "div",
        { class: "column wide" },
        h("a", { href: "#/", class: "back" }, icon("back"), "All recordings"),
        h("h1", {}, "Enhance a folder"),
        h("p", { class: "lead" }, "All recordings in a folder and its subfolders are enhanced into another folder with the same structure. Outputs are as loud as the recordings, and each gets a recipe. Recordings that already sound like the reference are left unchanged. Nothing is overwritten."),
        h(
          "div",
          { class: "panel" },
          placeField("Recordings to enhance", "A folder; its subfolders are included.", (place) => {
            this.input = place;
            this.into.value = `${place.name} enhanced`;
            this.enable();
          }),
          placeField("Save in", "The new folder is created in this one.", (place) => {
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
        this.slot,
      ),
    );
    void get<ModelCard[]>("/models").then((models) =>
      this.model.replaceChildren(...models.map((model) => h("option", { value: model.name }, model.name))),
    );
    this.listening = new Listening(null, (job) => this.told(job), () => void this.whole());
    void this.resume();
  }

  destroy(): void {
    this.listening.close();
    this.results?.destroy();
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
    if (job) this.take(this.listening.latest(job));
  }

  private take(job: Job): void {
    this.job = job;
    this.results?.destroy();
    this.results = new Results(job);
    this.slot.replaceChildren(this.results.element);
    if (!this.results.known) void this.whole();
  }

  private told(job: Job): void {
    if (job.id !== this.job?.id) return;
    this.job = job;
    this.results?.told(job);
    if (!this.results?.known || over(job)) void this.whole();
  }

  /** Fetches the whole table: events contain only the row that changed. */
  private async whole(): Promise<void> {
    const { job } = this;
    const now = job && (await trying(() => get<Job>(`/jobs/${job.id}`)));
    if (!now || now.id !== this.job?.id) return;
    this.job = now;
    this.results?.told(now);
  }
}
