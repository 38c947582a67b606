/** Downloads: audio, recipe, picture, certificate, session, equalisers. */

import { ask, trying, type Formats, type Session } from "./api";
import { card, h, icon } from "./dom";

interface Take {
  name: string;
  what: string;
  path: string;
  needsFound: boolean;
}

const TAKES: Take[] = [
  { name: "Recipe", what: "renders exactly this output again", path: "recipe", needsFound: true },
  { name: "Picture", what: "input, mask and output", path: "picture", needsFound: true },
  { name: "Certificate", what: "all measurements, as JSON", path: "certificate", needsFound: true },
  { name: "Session", what: "continues in any studio", path: "session", needsFound: false },
];

export class TakeAway {
  readonly element: HTMLElement;
  private format: HTMLSelectElement;
  private audio: HTMLAnchorElement;
  private list = h("ul", { class: "takes" });
  private status = h("p", { class: "quiet", role: "status" });

  constructor(
    private session: Session,
    private settled: () => Promise<void>,
  ) {
    const own = session.sound.suffix || ".wav";
    this.format = h("select", { "aria-label": "Format of the audio" }, h("option", { value: own }, own.slice(1)));
    this.format.addEventListener("change", () => this.aim());
    this.audio = this.link("audio", icon("down"), h("span", {}, "Audio"));
    this.audio.className = "button primary";
    this.element = card("Download", h("div", { class: "row" }, this.audio, this.format), this.list, this.status);
    this.aim();
    this.offer([]);
  }

  /** Offers all audio formats, and equalisers for other programs. */
  know(formats: Formats): void {
    const own = this.format.value;
    this.format.replaceChildren(
      ...formats.sounds.map((suffix) => h("option", { value: suffix, selected: suffix === own }, suffix.slice(1))),
    );
    this.aim();
    this.offer(formats.equalisers.map(({ name, title }) => ({
      name: title,
      what: "for another program",
      path: `equaliser/${name}`,
      needsFound: true,
    })));
  }

  show(found: boolean): void {
    for (const row of this.list.querySelectorAll<HTMLElement>("[data-needs]")) row.hidden = !found;
  }

  private offer(equalisers: Take[]): void {
    this.list.replaceChildren(
      ...[...TAKES, ...equalisers].map((take) =>
        h("li", { "data-needs": take.needsFound }, this.link(take.path, take.name), h("span", { class: "quiet" }, take.what)),
      ),
    );
    this.show(this.session.state.found !== null);
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
      void trying(() => this.take(link.getAttribute("href") as string));
    });
    return link;
  }

  /** Downloads a file of the present edit, or shows why it is not available. */
  private async take(href: string): Promise<void> {
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
