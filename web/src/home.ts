/** The first page: upload a recording, or open a session. */

import { ask, get, trying, upload, type Formats, type Listed } from "./api";
import { button, clock, h, icon, say } from "./dom";
import { header } from "./header";
import { Recording } from "./recorder";

const ACCEPTED = "audio/*,.wav,.flac,.aif,.aiff,.mp3,.ogg,.opus,.caf,.w64,.au,.tonewood-session";

const RECENT = 8;

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
  private recording: Recording | null = null;
  private timer = 0;

  constructor() {
    document.title = "Tonewood studio";
    const pick = h("input", { type: "file", accept: ACCEPTED, class: "hidden", tabindex: "-1", "aria-label": "Recording" });
    pick.addEventListener("change", () => pick.files?.[0] && void this.open(pick.files[0], pick.files[0].name));
    this.drop = h(
      "section",
      { class: "drop", "aria-labelledby": "open" },
      h("h1", { id: "open" }, "Upload a recording"),
      h("p", { class: "lead" }, "Drop it here. Tonewood analyses it and finds an equaliser that brings it closer to the sound you chose. You can see, hear and change every decibel of the result."),
      h("div", { class: "row centre" }, button("Browse …", null, () => pick.click(), { class: "primary large" }), this.recordButton),
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
        h("section", { class: "recent", "aria-labelledby": "recent" }, h("h2", { id: "recent" }, "Continue with"), this.recents, this.more),
        h(
          "nav",
          { class: "ways", "aria-label": "More" },
          way("#/train", "school", "Train a model", "Two folders of recordings: the sound you want, and the one you have."),
          way("#/folder", "folder", "Enhance a folder", "All recordings enhanced with one model, scored and ready to compare."),
        ),
      ),
    );
    document.addEventListener("dragover", this.over);
    document.addEventListener("dragleave", this.left);
    document.addEventListener("drop", this.dropped);
    void this.load();
  }

  destroy(): void {
    clearInterval(this.timer);
    void this.recording?.stop();
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
    const file = event.dataTransfer?.files[0];
    if (file) void this.open(file, file.name);
  };

  private async load(): Promise<void> {
    const sessions = await trying(() => get<Listed[]>("/sessions"));
    performance.mark("page-ready");
    const shown = (sessions ?? []).slice(0, this.all ? undefined : RECENT);
    this.recents.replaceChildren(...shown.map((session) => this.recent(session)));
    this.recents.parentElement?.toggleAttribute("hidden", !sessions?.length);
    this.more.hidden = shown.length === (sessions ?? []).length;
    (this.more.lastChild as HTMLElement).textContent = `Show all ${sessions?.length}`;
  }

  private recent(session: Listed): HTMLElement {
    const row = h(
      "li",
      {},
      h(
        "a",
        { href: `#/s/${session.id}` },
        h("span", { class: "name" }, session.title),
        h("span", { class: "quiet" }, `${clock(session.seconds, 0)} · ${session.model} · ${ago(session.changed)}`),
      ),
      button(`Delete ${session.title}`, "trash", async () => {
        if (!confirm(`Delete ${session.title} and all its results?`)) return;
        if (await trying(() => ask("DELETE", `/sessions/${session.id}`))) void this.load();
      }, { bare: true, title: "Delete" }),
    );
    return row;
  }

  private async open(file: Blob, name: string): Promise<void> {
    // Checked here, because the server may close the connection before its reason arrives.
    const most = (await trying(() => get<Formats>("/formats")))?.upload_bytes;
    if (most === undefined) return;
    if (file.size > most) {
      say(`${name} has ${gib(file.size)}; the limit is ${gib(most)}: cut it, or start the studio with a larger --upload-gb`, "error");
      return;
    }
    this.bar.hidden = false;
    performance.mark("upload-started");
    const session = await trying(() =>
      upload(file, name, (share) => {
        this.bar.value = share;
        this.status.textContent = share < 1 ? `Uploading ${name} …` : `Reading ${name} …`;
        if (share >= 1) performance.mark("upload-ended");
      }),
    );
    this.bar.hidden = true;
    this.status.textContent = "";
    if (session) location.hash = `#/s/${session.id}`;
  }

  private async record(): Promise<void> {
    if (this.recording) {
      clearInterval(this.timer);
      const { recording } = this;
      this.recording = null;
      (this.recordButton.lastChild as HTMLElement).textContent = "Record";
      this.recordButton.classList.remove("live");
      const blob = await recording.stop();
      const day = new Date().toISOString().slice(0, 16).replace("T", " ").replace(":", ".");
      await this.open(blob, `Recording ${day}.wav`);
      return;
    }
    try {
      this.recording = await Recording.start();
    } catch {
      say("The microphone is not available: allow it in the browser, or upload a file.", "error");
      return;
    }
    this.recordButton.classList.add("live");
    this.timer = window.setInterval(() => {
      if (!this.recording) return;
      (this.recordButton.lastChild as HTMLElement).textContent = `Stop  ${clock(this.recording.seconds)}`;
      this.recordButton.style.setProperty("--level", String(this.recording.level.peak));
    }, 100);
  }
}

function way(href: string, glyph: string, title: string, text: string): HTMLElement {
  return h("a", { href, class: "way" }, icon(glyph), h("div", {}, h("strong", {}, title), h("p", {}, text)));
}

function gib(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

function ago(at: number): string {
  const seconds = Date.now() / 1000 - at;
  if (seconds < 90) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes ago`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} hours ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}
