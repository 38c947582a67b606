/** Downloads in three groups: audio, equalisers for other programs, documents. */

import { ask, trying, type Formats, type Session } from "./api";
import { card, h, icon } from "./dom";

interface Item {
  name: string;
  what: string;
  path: string;
}

const DOCUMENTS: Item[] = [
  { name: "Recipe", what: "renders exactly this output again", path: "recipe" },
  { name: "Picture", what: "input, mask and output", path: "picture" },
  { name: "Certificate", what: "all measurements, as JSON", path: "certificate" },
];
const SESSION: Item = { name: "Session", what: "continues in any studio", path: "session" };
const COMMON = [".wav", ".flac", ".mp3", ".aiff", ".ogg", ".opus"];
const ALIASES = new Set([".aif", ".aifc", ".oga", ".wave"]); // other endings of formats in the list

export class Exports {
  readonly element: HTMLElement;
  private format: HTMLSelectElement;
  private audio: HTMLAnchorElement;
  private audioRow: HTMLElement;
  private programs = h("ul", { class: "takes" });
  private programGroup: HTMLElement;
  private separate = h("p", { class: "quiet" }, "Separate masks fit no equaliser of other programs: search with one mask for that.");
  private documents = h("ul", { class: "takes" });
  private hint = h("p", { class: "quiet" }, "There is nothing to export yet but the session.");
  private status = h("p", { class: "quiet", role: "status" });

  constructor(
    private session: Session,
    private settled: () => Promise<void>,
  ) {
    const own = session.sound.suffix || ".wav";
    this.format = h("select", { "aria-label": "Format of the audio" }, h("option", { value: own }, own.slice(1).toUpperCase()));
    this.format.addEventListener("change", () => this.aim());
    this.audio = this.link("audio", icon("down"), h("span", {}, "Audio"));
    this.audio.className = "button primary";
    this.audioRow = h("div", { class: "row" }, this.audio, this.format);
    this.programGroup = h("details", {}, h("summary", {}, "For your DAW or player"), this.programs);
    this.element = card(
      "Export",
      this.hint,
      this.audioRow,
      this.programGroup,
      this.separate,
      h("details", {}, h("summary", {}, "Documents"), this.documents),
      this.status,
    );
    this.aim();
    const { found, edit, components } = session.state;
    this.show(found !== null, edit.notes.length > 0, components.length > 0);
  }

  /** Offers all audio formats, and equalisers for other programs. */
  know(formats: Formats): void {
    const own = this.format.value;
    const option = (suffix: string) => h("option", { value: suffix, selected: suffix === own }, suffix.slice(1).toUpperCase());
    const common = [...new Set([own, ...COMMON])].filter((suffix) => suffix === own || formats.sounds.includes(suffix));
    const more = formats.sounds.filter((suffix) => !common.includes(suffix) && !ALIASES.has(suffix));
    this.format.replaceChildren(...common.map(option), h("optgroup", { label: "More" }, ...more.map(option)));
    this.aim();
    this.programs.replaceChildren(
      ...formats.equalisers.map(({ name, title }) => this.row({ name: title.charAt(0).toUpperCase() + title.slice(1), what: "", path: `equaliser/${name}` })),
    );
  }

  /** Offers nothing that does not exist: audio needs a change, all else but the session a mask. */
  show(found: boolean, changed: boolean, separate: boolean): void {
    this.hint.hidden = changed;
    this.audioRow.hidden = !changed;
    this.programGroup.hidden = !found || separate;
    this.separate.hidden = !separate;
    this.documents.replaceChildren(...[...(found ? DOCUMENTS : []), SESSION].map((item) => this.row(item)));
  }

  private row(item: Item): HTMLElement {
    return h("li", {}, this.link(item.path, item.name), item.what && h("span", { class: "quiet" }, item.what));
  }

  private aim(): void {
    this.audio.setAttribute("href", `${this.base}/audio?format=${this.format.value.slice(1)}`);
  }

  private get base(): string {
    return `/api/sessions/${this.session.id}/take`;
  }

  private link(path: string, ...content: (Node | string)[]): HTMLAnchorElement {
    const link = h("a", { href: `${this.base}/${path}`, download: "" }, ...content);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      void trying(() => this.download(link.getAttribute("href") as string));
    });
    return link;
  }

  /** Downloads a file of the present edit, or shows why it is not available. */
  private async download(href: string): Promise<void> {
    this.status.textContent = "Preparing the file …";
    try {
      await this.settled();
      const answer = await ask("GET", href.replace("/api", ""));
      const url = URL.createObjectURL(await answer.blob());
      h("a", { href: url, download: named(answer.headers.get("Content-Disposition") ?? "") }).click();
      window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } finally {
      this.status.textContent = "";
    }
  }
}

/** Returns the file name in a Content-Disposition header. */
function named(disposition: string): string {
  const exact = /filename\*=utf-8''([^;]+)/i.exec(disposition);
  return exact ? decodeURIComponent(exact[1]) : (/filename="([^"]+)"/.exec(disposition)?.[1] ?? "tonewood");
}
