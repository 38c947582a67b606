/** Sends edits to the server one after the other, so that the last one counts. */

import { get, post, put, Refused, trying, type Edit, type Session, type State } from "./api";

export class Edits {
  now: Edit;
  kept = 0; // number of edits so far
  private pending: Edit | null = null; // to be sent after the one before
  private saving: Promise<void> = Promise.resolve();
  private unsent = false; // the server was not reachable
  private channel = new BroadcastChannel("tonewood-edits"); // to other tabs

  constructor(
    private session: Session,
    /** Receives a state, and whether it answers the edit that is shown. */
    private accept: (state: State, mine?: boolean) => void,
  ) {
    this.now = session.state.edit;
    this.channel.onmessage = (event) => event.data === session.id && void this.look();
    document.addEventListener("visibilitychange", this.seen);
  }

  destroy(): void {
    void this.send(); // send the pending edit now
    document.removeEventListener("visibilitychange", this.seen);
    this.channel.close();
  }

  /** Whether the edit is that of the server: none is being made, sent or waiting. */
  get rest(): boolean {
    return JSON.stringify(this.now) === JSON.stringify(this.session.state.edit);
  }

  keep(edit: Edit): void {
    this.now = edit;
    this.kept += 1;
    const idle = this.pending === null;
    this.pending = edit;
    if (idle) this.saving = this.saving.then(() => this.send());
  }

  /** Resolves when all edits are sent. */
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
        if (error instanceof Refused && error.status === 0) this.unsent = true;
        else this.accept(this.session.state, this.now === edit); // refused: it is taken back
        throw error;
      }
    });
  }

  /** Sends the edit again that did not reach the server; returns whether there was one. */
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

  /** Another tab, or another machine while this page was hidden, may have changed the edit. */
  private async look(): Promise<void> {
    await this.saving;
    if (this.pending || this.unsent) return;
    await trying(async () => {
      const state = await get<State>(`/sessions/${this.session.id}/state`);
      if (state.number !== this.session.state.number || state.key !== this.session.state.key) this.accept(state);
    });
  }
}
