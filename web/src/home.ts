/** The first page: open a recording, or continue a session. */

import { ask, get, put, trying, type Listed, type Session } from "./api";
import { button, clock, h, icon, say } from "./dom";
import { header } from "./header";
import { dropped, openFiles, type Opening } from "./opening";
import { Recording } from "./recorder";
import { thumbnail } from "./thumbnail";

const ACCEPTED = "audio/*,.wav,.flac,.aif,.aiff,.mp3,.ogg,.opus,.caf,.w64,.au,.tonewood-session";
const RECENT = 8;
const UNDO_MS = 8000;
const CLIPPED = 0.99; // peak of full scale

export class HomePage {
  readonly element = h("main", { class: "home" });
  private drop: HTMLElement;
  private status = h("p", { class: "status", role: "status" });
  private bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  private recents = h("ul", { class: "recents" });
  private all = false;
  private more = button("Show all", null, () => {
    this.all = true;
    void this.load();
  }, { class: "small", hidden: true });
  private recordButton = button("Record", "mic", () => void this.record(), { class: "large" });
  private input = h("select", { "aria-label": "Microphone", hidden: true });
  private recording: Recording | null = null;
  private timer = 0;
  private going = new Map<string, number>(); // sessions that are deleted soon

  constructor() {
    document.title = "Tonewood studio";
    const pick = h("input", { type: "file", accept: ACCEPTED, class: "hidden", tabindex: "-1", "aria-label": "Recording", multiple: true });
    pick.addEventListener("change", () => void this.open([...(pick.files ?? [])].map((file) => ({ file, name: file.name }))));
    this.drop = h(
      "section",
      { class: "drop", "aria-labelledby": "open" },
      h("h1", { id: "open" }, "Open a recording"),
      h("p", { class: "lead" }, "Drop it here. Tonewood analyses it and finds the EQ that moves it towards the sound you chose. You can see, hear and change every decibel of the result."),
      h("div", { class: "row centre" }, button("Browse …", null, () => pick.click(), { class: "primary large" }), this.recordButton, this.input),
      pick,
      this.bar,
      this.status,
    );
    this.element.append(
      header(),
      h(
        "div",
        { class: "column" },
        this.drop,
        h("section", { class: "recent", "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Recent"), this.recents, this.more),
        h(
          "nav",
          { class: "ways", "aria-label": "More" },
          way("#/train", "school", "Train a sound", "Two folders of recordings: the sound you want, and the one you have."),
          way("#/folder", "folder", "Enhance a folder", "All recordings enhanced with one model, scored and ready to compare."),
        ),
      ),
    );
    document.addEventListener("dragover", this.over);
    document.addEventListener("dragleave", this.left);
    document.addEventListener("drop", this.dropped);
    addEventListener("pagehide", this.leaving);
    void this.load();
    void this.listInputs();
  }

  destroy(): void {
    clearInterval(this.timer);
    void this.recording?.stop();
    this.leaving();
    removeEventListener("pagehide", this.leaving);
    document.removeEventListener("dragover", this.over);
    document.removeEventListener("dragleave", this.left);
    document.removeEventListener("drop", this.dropped);
  }

  private over = (event: DragEvent): void => {
    event.preventDefault();
    this.drop.classList.add("over");
  };

  private left = (event: DragEvent): void => {
    if (!event.relatedTarget) this.drop.classList.remove("over");
  };

  private dropped = (event: DragEvent): void => {
    event.preventDefault();
    this.drop.classList.remove("over");
    void this.open(dropped(event));
  };

  /** Deletions that can still be undone become final. */
  private leaving = (): void => {
    for (const id of [...this.going.keys()]) this.erase(id);
  };

  private async load(): Promise<void> {
    const sessions = (await trying(() => get<Listed[]>("/sessions")))?.filter(({ id }) => !this.going.has(id));
    performance.mark("page-ready");
    const shown = (sessions ?? []).slice(0, this.all ? undefined : RECENT);
    this.recents.replaceChildren(...shown.map((session) => this.recent(session)));
    this.recents.parentElement?.toggleAttribute("hidden", !sessions?.length);
    this.more.hidden = shown.length === (sessions ?? []).length;
    (this.more.lastChild as HTMLElement).textContent = `Show all ${sessions?.length}`;
  }

  private recent(session: Listed): HTMLElement {
    const name = h("span", { class: "name" }, session.title);
    const link = h(
      "a",
      { href: `#/s/${session.id}` },
      name,
      h("span", { class: "quiet" }, `${clock(session.seconds, 0)} · ${session.model} · ${ago(session.changed)}`),
    );
    return h(
      "li",
      {},
      thumbnail(session),
      link,
      button(`Rename ${session.title}`, "pencil", () => this.rename(session, link, name), { bare: true, title: "Rename" }),
      button(`Delete ${session.title}`, "trash", () => this.remove(session), { bare: true, title: "Delete" }),
    );
  }

  private rename(session: Listed, link: HTMLElement, name: HTMLElement): void {
    const field = h("input", { type: "text", maxlength: "200", "aria-label": "Name of the recording" });
    field.value = session.title;
    let open = true;
    const close = async (keep: boolean) => {
      if (!open) return;
      open = false;
      const title = field.value.trim();
      field.replaceWith(link);
      if (!keep || !title || title === session.title) return;
      name.textContent = title;
      await trying(() => put<Session>(`/sessions/${session.id}/title`, { title }));
      await this.load();
    };
    field.addEventListener("blur", () => void close(true));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") void close(true);
      if (event.key === "Escape") void close(false);
    });
    link.replaceWith(field);
    field.select();
  }

  /** Deletes a session after a few seconds, in which it can be brought back. */
  private remove(session: Listed): void {
    this.going.set(session.id, window.setTimeout(() => this.erase(session.id), UNDO_MS));
    void this.load();
    const undo = () => {
      clearTimeout(this.going.get(session.id));
      if (this.going.delete(session.id)) void this.load();
    };
    say(`${session.title} and its results were deleted.`, "plain", { name: "Undo", act: undo, lasts_ms: UNDO_MS });
  }

  private erase(id: string): void {
    clearTimeout(this.going.get(id));
    if (this.going.delete(id)) void trying(() => ask("DELETE", `/sessions/${id}`));
  }

  private async open(files: { file: Blob; name: string }[]): Promise<void> {
    if (!files.length) return;
    const opened = await openFiles(files, (at: Opening | null) => {
      this.bar.hidden = !at;
      this.bar.value = at?.share ?? 0;
      this.status.textContent = at ? `${at.share < 1 ? "Uploading" : "Reading"} ${at.name} …` : "";
    });
    if (files.length > 1 && opened.length) {
      say(`${opened.length} of ${files.length} recordings opened: choose one below.`);
      await this.load();
    }
  }

  private async record(): Promise<void> {
    if (this.recording) {
      clearInterval(this.timer);
      const { recording } = this;
      this.recording = null;
      (this.recordButton.lastChild as HTMLElement).textContent = "Record";
      this.recordButton.classList.remove("live");
      this.status.textContent = "";
      const blob = await recording.stop();
      const day = new Date().toISOString().slice(0, 16).replace("T", " ").replace(":", ".");
      await this.open([{ file: blob, name: `Recording ${day}.wav` }]);
      return;
    }
    try {
      this.recording = await Recording.start(this.input.value);
    } catch {
      say("The microphone is not available: allow it in the browser, or open a file.", "error");
      return;
    }
    void this.listInputs();
    this.recordButton.classList.add("live");
    let clipped = false;
    this.timer = window.setInterval(() => {
      if (!this.recording) return;
      const { seconds, level } = this.recording;
      (this.recordButton.lastChild as HTMLElement).textContent = `Stop  ${clock(seconds)}`;
      this.recordButton.style.setProperty("--level", String(level.peak));
      clipped ||= level.peak >= CLIPPED;
      const peak = `Peak ${(20 * Math.log10(Math.max(level.peak, 1e-5))).toFixed(0)} dBFS.`.replace("-", "−");
      this.status.textContent = clipped ? "The recording is clipped: turn the input down and record again." : peak;
      this.status.classList.toggle("error", clipped);
    }, 100);
  }

  /** Offers the microphones, whose names are known once one was allowed. */
  private async listInputs(): Promise<void> {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const inputs = devices.filter(({ kind, label }) => kind === "audioinput" && label);
    this.input.hidden = inputs.length < 2;
    const { value } = this.input;
    this.input.replaceChildren(...inputs.map(({ deviceId, label }) => h("option", { value: deviceId, selected: deviceId === value }, label)));
  }
}

function way(href: string, glyph: string, title: string, text: string): HTMLElement {
  return h("a", { href, class: "way" }, icon(glyph), h("div", {}, h("strong", {}, title), h("p", {}, text)));
}

function ago(at: number): string {
  const seconds = Date.now() / 1000 - at;
  if (seconds < 90) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes ago`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} hours ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}
