/** Sends edits to the server one after the other, and joins them with those of other pages. */

import { ask, get, post, Refused, trying, type Edit, type Session, type State } from "./api";
import { merged } from "./merging";

const SOON_MS = 400; // steps of the wheel or of keys that are closer together are one edit
const TRIES = 6;

export class Edits {
  now: Edit;
  kept = 0; // number of edits so far
  private base: State; // of the server, from which `now` was made
  private pending: Edit | null = null; // to be sent after the one before
  private saving: Promise<void> = Promise.resolve();
  private unsent = false; // the server was not reachable
  private soon = 0;
  private channel = new BroadcastChannel("tonewood-edits"); // to other tabs

  constructor(
    private session: Session,
    /** Receives a state whose edit was applied. */
    private accept: (state: State) => void,
  ) {
    this.now = session.state.edit;
    this.base = session.state;
    this.channel.onmessage = (event) => event.data === session.id && void this.look();
    document.addEventListener("visibilitychange", this.seen);
  }

  /** Sends the pending edit now. */
  leave(): void {
    if (this.soon) this.pending = this.now;
    clearTimeout(this.soon);
    this.soon = 0;
    void this.send();
  }

  destroy(): void {
    this.leave();
    document.removeEventListener("visibilitychange", this.seen);
    this.channel.close();
  }

  /** Whether the edit is that of the server: none is being made, sent or waiting. */
  get rest(): boolean {
    return JSON.stringify(this.now) === JSON.stringify(this.base.edit);
  }

  /** Applies a state of the server; changes of this page since `since` stay. */
  receive(state: State, since: Edit = this.base.edit): void {
    this.now = JSON.stringify(this.now) === JSON.stringify(since) ? state.edit : merged(since, this.now, state.edit);
    this.base = state;
    if (this.pending) this.pending = this.now;
  }

  keep(edit: Edit): void {
    clearTimeout(this.soon);
    this.soon = 0;
    this.now = edit;
    this.kept += 1;
    const idle = this.pending === null;
    this.pending = edit;
    if (idle) this.saving = this.saving.then(() => this.send());
  }

  /** Keeps an edit unless another one follows at once, so that undo takes both back together. */
  keepSoon(edit: Edit): void {
    clearTimeout(this.soon);
    this.now = edit;
    this.soon = window.setTimeout(() => this.flush(), SOON_MS);
  }

  /** Resolves when all edits are sent. */
  async settled(): Promise<void> {
    this.flush();
    await this.saving;
  }

  async send(): Promise<void> {
    const edit = this.pending;
    this.pending = null;
    if (!edit) return;
    await trying(async () => {
      try {
        const state = await this.put(edit);
        this.unsent = false;
        this.told(state, edit);
      } catch (error) {
        if (error instanceof Refused && error.status === 0) this.unsent = true;
        else this.told(this.base, edit); // refused: it is taken back
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
    await this.settled();
    await trying(async () => this.told(await post<State>(`/sessions/${this.session.id}/${way}`), this.now));
  }

  /** Stores an edit; one that another page made meanwhile is joined with it. */
  private async put(edit: Edit): Promise<State> {
    let base = this.base;
    let mine = edit;
    for (let n = 0; n < TRIES; n++) {
      try {
        const answer = await ask("PUT", `/sessions/${this.session.id}/edit`, mine, { "If-Match": base.key });
        return (await answer.json()) as State;
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 412) throw error;
        const theirs = await get<State>(`/sessions/${this.session.id}/state`);
        mine = merged(base.edit, mine, theirs.edit);
        base = theirs;
      }
    }
    throw new Refused(412, "other pages change this recording all the time: try again");
  }

  private flush(): void {
    if (this.soon) this.keep(this.now);
  }

  private told(state: State, since: Edit): void {
    this.receive(state, since);
    this.accept(state);
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
      if (state.number === this.base.number && state.key === this.base.key) return;
      this.receive(state);
      this.accept(state);
    });
  }
}
