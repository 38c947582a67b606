/** The searches of one recording: started, followed, cancelled. */

import { cancel, capital, get, Listening, over, post, trying, type Job, type Session } from "./api";
import { arrange, h, say } from "./dom";
import type { Edits } from "./edits";
import { Progress } from "./progress";

interface Heard {
  /** Receives the session when a job is done, or when the server is reachable again (without a job). */
  stands(session: Session, job: Job | null): void;
}

export class Searches {
  readonly element = h("div", { class: "progress-slot" });
  private progress = new Progress(() => cancel(this.job));
  private job: Job | null = null;
  private listening: Listening;
  private gone = false;

  constructor(
    private session: Session,
    private edits: Edits,
    private heard: Heard,
  ) {
    this.listening = new Listening(session.id, (job) => void this.told(job), () => void this.back());
    for (const job of session.jobs) void this.told(job);
  }

  destroy(): void {
    this.gone = true;
    this.listening.close();
  }

  async enhance(force: boolean): Promise<void> {
    await this.edits.settled();
    await trying(() => post(`/sessions/${this.session.id}/enhance`, { force }));
  }

  async again(): Promise<void> {
    await this.edits.settled();
    const { notes } = this.edits.now;
    const pinned = notes.filter((note) => note.pinned).length;
    const others = notes.length - pinned;
    say(
      `Searching again around ${pinned || "no"} pinned note${pinned === 1 ? "" : "s"}` +
        (others ? `; ${others} that ${others === 1 ? "is" : "are"} not pinned will be removed. Undo restores them.` : "."),
    );
    await trying(() => post(`/sessions/${this.session.id}/again`, {}));
  }

  explain(): void {
    void trying(() => post(`/sessions/${this.session.id}/explain`));
  }

  /** Starts the full rendering of an edit. */
  whole(): void {
    void trying(() => post(`/sessions/${this.session.id}/whole`));
  }

  private async told(job: Job): Promise<void> {
    if (this.gone || job.session !== this.session.id) return;
    if (!over(job)) {
      if (job.kind !== "whole") this.job = job;
    } else if (this.job?.id === job.id) this.job = null;
    this.show();
    if (job.state === "failed") say(capital(String(job.told.error)), "error");
    if (job.state === "cancelled" && job.kind !== "whole") say("Cancelled; nothing was changed.");
    if (job.state === "done") await this.look(job);
  }

  /** The server is reachable again; its jobs may be lost. */
  private async back(): Promise<void> {
    if (this.job) say("The studio was restarted and the search was lost: search again.", "error");
    this.job = null;
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
    if (this.job) this.progress.search(this.job);
    arrange(this.element, this.job ? [this.progress.element] : []);
  }
}
