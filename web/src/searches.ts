/** The searches of one recording: started, followed, cancelled. */

import { cancel, capital, get, Listening, over, post, trying, type Job, type Part, type Session } from "./api";
import { arrange, h, say } from "./dom";
import type { Edits } from "./edits";
import { Progress } from "./progress";
import { choose } from "./sheet";

const PART_MS = 2000;

interface Heard {
  /** Receives the session when a job is done, or when the server is reachable again (without a job). */
  stands(session: Session, job: Job | null): void;
  /** The rendering of an edit was stopped. */
  stopped(): void;
  /** A search has found a part of the mask; null when it was stopped. */
  found(part: Part | null): void;
}

export class Searches {
  readonly element = h("div", { class: "progress-slot" });
  private progress = new Progress(() => cancel(this.job));
  private job: Job | null = null;
  private listening: Listening;
  private gone = false;
  private partAt = -Infinity; // performance.now() of the part that was passed on last

  constructor(
    private session: Session,
    private edits: Edits,
    private heard: Heard,
    private link: HTMLSelectElement | null,
  ) {
    this.listening = new Listening(session.id, (job) => void this.told(job), () => void this.back());
  }

  /** Follows the jobs that run already, once the page is built. */
  begin(): void {
    for (const job of this.session.jobs) void this.told(job);
  }

  destroy(): void {
    this.gone = true;
    this.progress.stop();
    this.listening.close();
  }

  /** Searches a mask with the chosen model; asks what to keep if there are notes of a search before. */
  async search(): Promise<void> {
    const { notes } = this.edits.now;
    const { found, model } = this.session.state;
    if (found === null || notes.length === 0 || model !== this.session.model) return this.enhance(false);
    const pinned = notes.filter((note) => note.pinned).length;
    const all = notes.length === 1 ? "The note" : `All ${notes.length} notes`;
    const keep = await choose(
      "Search again",
      "The automatic EQ is searched anew around the notes that you keep. Undo brings everything back.",
      [
        { value: "all", text: all },
        { value: "pinned", text: `Only pinned notes (${pinned})` },
        { value: "none", text: "None" },
      ],
      "Search again",
    );
    if (!keep) return;
    await this.edits.settled();
    await trying(() => post(`/sessions/${this.session.id}/again`, { keep, ...this.options }));
  }

  async enhance(force: boolean): Promise<void> {
    await this.edits.settled();
    await trying(() => post(`/sessions/${this.session.id}/enhance`, { force, ...this.options }));
  }

  private get options(): { link?: string } {
    return this.link ? { link: this.link.value } : {};
  }

  explain(): void {
    void trying(() => post(`/sessions/${this.session.id}/explain`));
  }

  /** Starts the full rendering of an edit. */
  whole(): void {
    void trying(async () => {
      const job = await post<Partial<Job>>(`/sessions/${this.session.id}/whole`);
      if (!job.id) await this.look(null); // it is there already
    });
  }

  private async told(job: Job): Promise<void> {
    if (this.gone || job.session !== this.session.id) return;
    if (!over(job)) {
      if (job.kind !== "whole") this.job = job;
    } else if (this.job?.id === job.id) this.job = null;
    this.show();
    this.tellPart(job);
    if (job.state === "failed") say(capital(String(job.told.error)), "error");
    if (job.state === "cancelled" && job.kind !== "whole") say("Cancelled; nothing was changed.");
    if (job.kind === "whole" && (job.state === "cancelled" || job.state === "interrupted")) this.heard.stopped();
    if (job.state === "done") await this.look(job);
  }

  /** Passes on what a search has found, not more often than the page can show it. */
  private tellPart(job: Job): void {
    if (job.kind !== "enhance" && job.kind !== "again") return;
    const part: Part | null = job.told.part ? { ...job.told.part, job: job.id } : null;
    if (over(job)) {
      if (job.state !== "done") this.heard.found(null);
    } else if (part && part.seconds !== this.session.state.part?.seconds && performance.now() - this.partAt > PART_MS) {
      this.partAt = performance.now();
      this.heard.found(part);
    }
  }

  /** The server is reachable again; its jobs may be lost. */
  private async back(): Promise<void> {
    if (this.job) say("The studio was restarted and the search was lost: search again.", "error");
    this.job = null;
    this.heard.found(null);
    this.show();
    await this.look(null);
  }

  private async look(job: Job | null): Promise<void> {
    for (;;) {
      await this.edits.settled();
      const kept = this.edits.kept;
      const told = await trying(() => get<Session>(`/sessions/${this.session.id}`));
      if (!told || this.gone) return;
      if (kept !== this.edits.kept) continue; // an edit made meanwhile is not included
      return this.heard.stands(told, job);
    }
  }

  private show(): void {
    if (this.job) this.progress.search(this.job, this.session.seconds);
    else this.progress.stop();
    arrange(this.element, this.job ? [this.progress.element] : []);
  }
}
