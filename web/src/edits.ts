/** An edit on its way to the server: kept one after the other, so that the last one stands. */

import { post, put, trying, type Edit, type Session, type State } from "./api";

export class Edits {
  now: Edit;
  private pending: Edit | null = null; // to be kept, once the one before is
  private saving: Promise<void> = Promise.resolve();

  constructor(
    private session: Session,
    /** Hears what the server made of an edit, and whether it is still the one that is shown. */
    private accept: (state: State, mine: boolean) => void,
  ) {
    this.now = session.state.edit;
  }

  keep(edit: Edit): void {
    this.now = edit;
    const idle = this.pending === null;
    this.pending = edit;
    if (idle) this.saving = this.saving.then(() => this.send());
  }

  /** Resolves when all that was kept is told to the server. */
  async settled(): Promise<void> {
    await this.saving;
  }

  /** Sends at once what was not sent yet. */
  async send(): Promise<void> {
    const edit = this.pending;
    this.pending = null;
    if (!edit) return;
    await trying(async () => {
      const state = await put<State>(`/sessions/${this.session.id}/edit`, edit);
      this.accept(state, this.now === edit);
    });
  }

  async step(way: "undo" | "redo"): Promise<void> {
    await this.saving;
    await trying(async () => this.accept(await post<State>(`/sessions/${this.session.id}/${way}`), true));
  }
}
