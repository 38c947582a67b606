/** What is taken away: audio, recipe, picture, session. */

import { ask, trying, type Formats, type Session } from "./api";
import { card, h, icon } from "./dom";

interface Take {
  name: string;
  what: string;
  path: string;
  needsFound: boolean;
}

const TAKES: Take[] = [
  { name: "Recipe", what: "renders it again, exactly", path: "recipe", needsFound: true },
  { name: "Picture", what: "before, mask and after", path: "picture", needsFound: true },
  { name: "Certificate", what: "all figures, as JSON", path: "certificate", needsFound: true },
  { name: "Session", what: "reopens here, or anywhere", path: "session", needsFound: false },
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
    this.element = card("Take away", h("div", { class: "row" }, this.audio, this.format), this.list, this.status);
    this.aim();
    this.offer([]);
  }

  /** Every format of sound, and the equalisers of other programs. */
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

  /** Fetches a file and hands it to the browser: as it is now edited, or with the reason why not. */
  private async take(href: string): Promise<void> {
    this.status.textContent = "Preparing it …";
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

/** The name of a file that is sent. */
function named(disposition: string): string {
  const exact = /filename\*=utf-8''([^;]+)/i.exec(disposition);
  return exact ? decodeURIComponent(exact[1]) : (/filename="([^"]+)"/.exec(disposition)?.[1] ?? "tonewood");
}
