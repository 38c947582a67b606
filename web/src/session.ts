/** The page of one recording: see, hear and edit it. */

import { get, trying, type Formats, type Job, type Session, type State } from "./api";
import { AverageEq } from "./average";
import type { Box, Tool } from "./blocks";
import { CertificateCard } from "./certificate";
import { button, h } from "./dom";
import { Edits } from "./edits";
import { facts } from "./facts";
import { header } from "./header";
import { typed } from "./keys";
import { Marks } from "./marks";
import { modelChoice } from "./models";
import { Overview } from "./overview";
import { Player } from "./player";
import type { AxisName } from "./scale";
import { Scope } from "./scope";
import { Searches } from "./searches";
import { TakeAway } from "./takeaway";
import { Transport, type Region } from "./transport";
import { Viewing } from "./viewing";

const SETTLE_MS = 500;

export class SessionPage {
  readonly element = h("main", { class: "session" });
  private player: Player;
  private scope: Scope;
  private eq: AverageEq;
  private edits: Edits;
  private settle = 0;
  private gone = false;

  // parts of the page that change
  private transport: Transport;
  private overview: Overview;
  private viewing: Viewing;
  private searches: Searches;
  private enhanceButton = button("Enhance", null, () => void this.searches.enhance(false), { class: "primary" });
  private certificate = new CertificateCard(() => void this.searches.enhance(true));
  private marks: Marks;
  private takeAway: TakeAway;

  constructor(private session: Session) {
    this.edits = new Edits(session, (state, mine) => this.accept(state, mine));
    this.player = new Player(session);
    this.scope = new Scope(session);
    this.eq = new AverageEq(this.scope.scale);
    this.transport = new Transport(this.player, this.scope, {
      turned: (amount) => this.turned(amount),
      kept: () => this.marks.keep(this.edits.now),
      looped: (region) => this.loop(region),
    });
    this.overview = new Overview(this.player, {
      looped: (region) => this.transport.loop(region),
      moved: (start) => {
        this.scope.scale.move(start);
        this.scope.moved();
      },
    });
    this.viewing = new Viewing(this.scope, this.player, {
      stepped: (way) => void this.edits.step(way),
      drawn: (tool, box) => this.drawn(tool, box),
      cleared: () => this.marks.select(null),
      overlaid: (overlay) => overlay === "saliency" && !session.saliency && this.searches.explain(),
      axis: (axis) => void this.axis(axis),
    });
    this.marks = new Marks(this.edits, this.scope, this.player, () => void this.searches.again());
    this.searches = new Searches(session, this.edits, { stands: (told, job) => this.stands(told, job) });
    this.takeAway = new TakeAway(session, () => this.edits.settled());
    this.build();
    this.connect();
    void this.load();
  }

  destroy(): void {
    this.gone = true;
    clearTimeout(this.settle);
    this.searches.destroy();
    this.transport.destroy();
    this.player.forget();
    this.overview.destroy();
    document.removeEventListener("keydown", this.typed);
    document.removeEventListener("theme", this.themed);
    removeEventListener("pagehide", this.leaving);
    this.edits.destroy();
  }

  // --- construction

  private build(): void {
    const { session } = this;
    document.title = `${session.title} · Tonewood`;
    this.element.append(
      header(
        [h("h1", { class: "title", title: session.title }, session.title), h("span", { class: "facts quiet" }, facts(session))],
        [h("div", { class: "enhance" }, modelChoice(session), this.enhanceButton)],
      ),
      h(
        "div",
        { class: "desk" },
        h(
          "div",
          { class: "stage" },
          this.transport.element,
          this.searches.element,
          this.overview.element,
          h("div", { class: "seeing" }, this.scope.element, this.eq.element),
          ...this.viewing.elements,
          this.transport.levels,
        ),
        h(
          "aside",
          { class: "side", "aria-label": "Certificate and edits" },
          this.certificate.element,
          this.marks.list.element,
          this.takeAway.element,
        ),
      ),
    );
    this.transport.listenTo(session.state.found === null ? "input" : "output");
    this.show();
  }

  private connect(): void {
    const { player, scope } = this;
    for (const kind of ["levels", "way"]) {
      player.addEventListener(kind, () => this.transport.tell(this.session.state, this.session.sound.clipped));
    }
    scope.onchange = () => {
      this.marks.lay();
      scope.loop(player.loop);
      this.eq.draw(this.edits.now.amount);
      scope.playhead(player.position, false);
      this.overview.window(scope.scale);
    };
    document.addEventListener("keydown", this.typed);
    document.addEventListener("theme", this.themed);
    addEventListener("pagehide", this.leaving);
  }

  private async load(): Promise<void> {
    await trying(async () => {
      const [{ peaks }, formats] = await Promise.all([
        get<{ peaks: number[] }>(`/sessions/${this.session.id}/waveform`),
        get<Formats>("/formats"),
        this.eq.load(this.session),
      ]);
      if (this.gone) return;
      this.overview.draw(peaks);
      this.overview.window(this.scope.scale);
      this.eq.draw(this.edits.now.amount);
      this.takeAway.know(formats);
      performance.mark("page-ready");
    });
  }

  // --- display

  private show(): void {
    const { state } = this.session;
    const { amount } = this.edits.now;
    const found = state.found !== null;
    this.scope.state = state;
    this.scope.amount = amount;
    this.transport.show(amount);
    this.transport.tell(state, this.session.sound.clipped);
    this.viewing.show(state);
    this.enhanceButton.classList.toggle("primary", !found);
    (this.enhanceButton.lastChild as HTMLElement).textContent = found ? "Enhance again" : "Enhance";
    this.marks.found = found;
    this.certificate.show(state);
    this.takeAway.show(found);
    this.marks.lay();
    this.scope.draw();
    this.eq.draw(amount);
  }

  private themed = (): void => {
    this.scope.repaint();
    this.viewing.showLegend();
    this.overview.ink();
  };

  private async axis(axis: AxisName): Promise<void> {
    this.scope.scale.axis = axis;
    this.scope.moved();
    await trying(() => this.eq.load(this.session));
    this.eq.draw(this.edits.now.amount);
  }

  // --- edits

  private turned(amount: number): void {
    this.edits.now = { ...this.edits.now, amount };
    this.scope.amount = amount;
    this.scope.draw();
    this.eq.draw(amount);
  }

  /** The page is closed: the pending edit is sent now. */
  private leaving = (): void => {
    void this.edits.send();
  };

  /** Applies a state of the server. Its edit replaces that of the page if `mine`, or if the page has no change of its own. */
  private accept(state: State, mine = false): void {
    const edit = mine || this.edits.rest;
    const changed = state.key !== this.session.state.key;
    const curve = changed || state.found !== this.session.state.found;
    this.session.state = state;
    if (edit) {
      this.edits.now = state.edit;
      this.player.amount = null;
    }
    this.player.levels = state.levels;
    this.show();
    if (changed) void this.player.refresh();
    if (curve) void this.eq.load(this.session).then(() => this.eq.draw(this.edits.now.amount));
    if (!state.whole && (state.found !== null || state.edit.notes.length)) this.settleSoon();
  }

  /** Starts the full rendering when the edit has not changed for a moment. */
  private settleSoon(): void {
    clearTimeout(this.settle);
    this.settle = window.setTimeout(() => {
      if (!this.gone && !this.session.state.whole) this.searches.whole();
    }, SETTLE_MS);
  }

  private drawn(tool: Tool, box: Box): void {
    if (tool === "note") this.marks.addNote(box);
    if (tool === "area") this.marks.addArea(box);
    if (tool === "loop" && box.end - box.start > 0.03) this.loop(box);
  }

  private loop(region: Region | null): void {
    const stretch = region && { start: region.start, end: region.end };
    this.transport.loop(stretch);
    this.overview.loop(stretch);
  }

  /** Applies the session after a job, or when the server is reachable again. */
  private stands(told: Session, job: Job | null): void {
    if (!job && this.edits.resend()) return;
    this.session.saliency = told.saliency;
    const first = this.session.state.found === null && told.state.found !== null;
    this.accept(told.state);
    if (first) this.transport.listenTo("output");
    if (job?.kind === "explain") this.scope.draw();
  }

  // --- keys

  private typed = (event: KeyboardEvent): void => {
    const { transport, viewing, player, session } = this;
    const second = (shift: boolean) => (shift ? 5 : 1);
    typed(event, {
      " ": () => player.toggle(),
      "1": () => transport.listenTo("input"),
      "2": () => transport.listenTo("output"),
      "3": () => transport.listenTo("difference"),
      v: () => viewing.choose("move"),
      n: () => viewing.choose("note"),
      a: () => viewing.choose("area"),
      l: () => viewing.choose("loop"),
      "+": () => viewing.zoom(1 / 1.6),
      "=": () => viewing.zoom(1 / 1.6),
      "-": () => viewing.zoom(1.6),
      ArrowLeft: (shift) => transport.go(player.position - second(shift)),
      ArrowRight: (shift) => transport.go(player.position + second(shift)),
      Home: () => transport.go(0),
      End: () => transport.go(session.seconds - 0.05),
      Escape: () => {
        viewing.choose("move");
        this.marks.select(null);
      },
      "Ctrl-z": (shift) => void this.edits.step(shift ? "redo" : "undo"),
      "Ctrl-y": () => void this.edits.step("redo"),
    });
  };
}
