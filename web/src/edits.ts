/** An edit on its way to the server: kept one after the other, so that the last one stands. */

import { get, post, put, Refused, trying, type Edit, type Session, type State } from "./api";

export class Edits {
  now: Edit;
  kept = 0; // how often something was
  private pending: Edit | null = null; // to be kept, once the one before is
  private saving: Promise<void> = Promise.resolve();
  private unsent = false; // the server was away
  private channel = new BroadcastChannel("tonewood-edits"); // to other tabs

  constructor(
    private session: Session,
    /** Hears what the server made of an edit, and whether it is still the one that is shown. */
    private accept: (state: State, mine: boolean) => void,
  ) {
    this.now = session.state.edit;
    this.channel.onmessage = (event) => event.data === session.id && void this.look();
    document.addEventListener("visibilitychange", this.seen);
  }

  destroy(): void {
    void this.send(); // what was not sent yet, at once
    document.removeEventListener("visibilitychange", this.seen);
    this.channel.close();
  }

  keep(edit: Edit): void {
    this.now = edit;
    this.kept += 1;
    const idle = this.pending === null;
    this.pending = edit;
    if (idle) this.saving = this.saving.then(() => this.send());
  }

  /** Resolves when all that was kept is told to the server. */
  async settled(): Promise<void> {
    await this.saving;
  }

  async send(): Promise<void> {
    const edit = this.pending;
    this.pending = null;
    if (!edit) return;
    await trying(async () => {
      try {
        const state = await put<State>(`/sessions/${this.session.id}/edit`, edit);
        this.unsent = false;
        this.told(state, this.now === edit);
      } catch (error) {
        this.unsent ||= error instanceof Refused && error.status === 0;
        throw error;
      }
    });
  }

  /** Sends again what the server was not there for; whether there was something. */
  resend(): boolean {
    if (this.unsent) this.keep(this.now);
    return this.unsent;
  }

  async step(way: "undo" | "redo"): Promise<void> {
    await this.saving;
    await trying(async () => this.told(await post<State>(`/sessions/${this.session.id}/${way}`), true));
  }

  private told(state: State, mine: boolean): void {
    this.accept(state, mine);
    this.channel.postMessage(this.session.id);
  }

  private seen = (): void => {
    if (!document.hidden) void this.look();
  };

  /** Another tab, or another machine while this page was hidden, may have changed it. */
  private async look(): Promise<void> {
    await this.saving;
    if (this.pending || this.unsent) return;
    await trying(async () => {
      const state = await get<State>(`/sessions/${this.session.id}/state`);
      if (state.number !== this.session.state.number || state.key !== this.session.state.key) this.accept(state, true);
    });
  }
}
