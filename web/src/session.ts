/** The page of one recording: see, hear and edit it. */

import { get, inPart, maskOf, put, trying, type Formats, type Job, type Part, type Session, type State } from "./api";
import { AverageEq } from "./average";
import type { Box, Tool } from "./blocks";
import { CertificateCard } from "./certificate";
import { button, clock, decibels, h, hertz } from "./dom";
import { Edits } from "./edits";
import { Exports } from "./exports";
import { facts } from "./facts";
import { header } from "./header";
import { typed } from "./keys";
import { linkChoice } from "./linking";
import { Marks } from "./marks";
import { modelChoice } from "./models";
import { Overview } from "./overview";
import { Player } from "./player";
import type { AxisName } from "./scale";
import { Scope } from "./scope";
import { Searches } from "./searches";
import { ShapeCard } from "./shape";
import { showShortcuts } from "./sheet";
import { Snapshots } from "./snapshots";
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
  private curveTimer = 0;
  private gone = false;
  private told: State; // by the server
  private part: Part | null = null; // of a mask that is searched

  // parts of the page that change
  private transport: Transport;
  private overview: Overview;
  private viewing: Viewing;
  private searches: Searches;
  private snapshots: Snapshots;
  private shape: ShapeCard;
  private enhanceButton = button("Enhance", null, () => void this.searches.search(), { class: "primary" });
  private certificate = new CertificateCard(() => void this.searches.enhance(true));
  private marks: Marks;
  private exports: Exports;
  private link: HTMLSelectElement | null;

  constructor(private session: Session) {
    this.told = session.state;
    this.link = linkChoice(session);
    this.edits = new Edits(session, (state) => this.accept(state));
    this.player = new Player(session);
    this.scope = new Scope(session);
    this.eq = new AverageEq(this.scope.scale, () => void this.loadCurve());
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
      layered: (layer) => layer === "saliency" && !session.saliency && this.searches.explain(),
      axis: (axis) => void this.axis(axis),
      turned: () => void this.loadCurve(),
    });
    this.marks = new Marks(this.edits, this.scope, this.player, (box) => this.solo(box));
    this.shape = new ShapeCard(this.marks);
    this.snapshots = new Snapshots(session, this.edits, () => this.marks.changed());
    this.searches = new Searches(session, this.edits, {
      stands: (told, job) => this.stands(told, job),
      stopped: () => this.settleIfNeeded(),
      found: (part) => this.partly(part),
    }, this.link);
    this.exports = new Exports(session, () => this.edits.settled());
    this.build();
    this.connect();
    this.searches.begin();
    void this.load();
  }

  destroy(): void {
    this.gone = true;
    clearTimeout(this.settle);
    clearTimeout(this.curveTimer);
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
    const skip = button("Skip to the picture", null, () => this.viewing.focus(), { class: "skip" });
    this.element.append(
      skip,
      header(
        [this.title(), h("span", { class: "facts quiet" }, facts(session))],
        [h("div", { class: "enhance" }, modelChoice(session, () => this.show()), this.link, this.enhanceButton)],
      ),
      h(
        "div",
        { class: "desk" },
        h(
          "div",
          { class: "stage" },
          this.transport.element,
          this.overview.element,
          h("div", { class: "seeing" }, this.scope.element, this.eq.element),
          ...this.viewing.elements,
          // Progress takes the place of the line about levels, so that nothing moves.
          h("div", { class: "foot" }, this.searches.element, h("div", { class: "told" }, this.transport.levels, this.viewing.readout)),
        ),
        h(
          "aside",
          { class: "side", "aria-label": "Certificate and edits" },
          this.certificate.element,
          this.shape.element,
          this.snapshots.element,
          this.marks.list.element,
          this.exports.element,
        ),
      ),
    );
    this.show();
    this.transport.listenTo(this.scope.masked ? "output" : "input");
  }

  private connect(): void {
    const { player, scope } = this;
    for (const kind of ["levels", "way"]) {
      player.addEventListener(kind, () => this.transport.tell(this.session.state, this.session.sound.clipped));
    }
    scope.onchange = () => {
      this.marks.lay();
      scope.loop(player.loop);
      this.eq.draw(this.edits.now);
      scope.playhead(player.position, false);
      this.overview.window(scope.scale);
      if (this.eq.follows) {
        clearTimeout(this.curveTimer);
        this.curveTimer = window.setTimeout(() => void this.loadCurve(), 250);
      }
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
        this.eq.load(this.session, this.scope.component),
      ]);
      if (this.gone) return;
      this.overview.draw(peaks);
      this.overview.window(this.scope.scale);
      this.showCurve();
      this.exports.know(formats);
      this.settleIfNeeded();
      performance.mark("page-ready");
    });
  }

  private title(): HTMLElement {
    const { session } = this;
    const name = h("button", { type: "button", class: "link", title: "Rename" }, session.title);
    const title = h("h1", { class: "title" }, name);
    name.addEventListener("click", () => {
      const field = h("input", { type: "text", maxlength: "200", "aria-label": "Name of the recording" });
      field.value = session.title;
      const close = async (keep: boolean) => {
        field.onblur = null;
        const wanted = field.value.trim();
        if (keep && wanted && wanted !== session.title) {
          const told = await trying(() => put<Session>(`/sessions/${session.id}/title`, { title: wanted }));
          if (told) session.title = told.title;
        }
        name.textContent = session.title;
        document.title = `${session.title} · Tonewood`;
        title.replaceChildren(name);
      };
      field.onblur = () => void close(true);
      field.addEventListener("keydown", (event) => {
        if (event.key === "Enter") void close(true);
        if (event.key === "Escape") void close(false);
        event.stopPropagation();
      });
      title.replaceChildren(field);
      field.select();
    });
    return title;
  }

  // --- display

  private show(): void {
    const { state } = this.session;
    const { amount, notes } = this.edits.now;
    const found = state.found !== null;
    this.scope.state = state;
    const masked = maskOf(state) !== null || notes.length > 0;
    this.scope.amount = amount;
    this.transport.show(amount, masked);
    this.transport.tell(state, this.session.sound.clipped);
    this.viewing.show(state);
    const other = found && state.model !== this.session.model;
    const act = other ? `Enhance with ${this.session.model}` : found ? "Search again" : "Enhance";
    (this.enhanceButton.lastChild as HTMLElement).textContent = act;
    this.enhanceButton.classList.toggle("primary", !found || other);
    this.certificate.show(state, this.session.model);
    this.exports.show(found, found || notes.length > 0, state.components.length > 0);
    this.shape.show(found);
    this.marks.lay();
    this.summarise();
    this.scope.draw();
    this.eq.draw(this.edits.now);
  }

  /** Says in words what the picture shows. */
  private summarise(): void {
    const { session, scope, eq } = this;
    const { notes, areas } = this.edits.now;
    const range = `${clock(scope.scale.start, 1)} to ${clock(scope.scale.end, 1)} of ${clock(session.seconds, 1)}`;
    const curve = eq.summary;
    const gains = scope.masked && curve ? ` The EQ boosts most at ${hertz(curve.boost.hz)} (${decibels(curve.boost.db)}) and cuts most at ${hertz(curve.cut.hz)} (${decibels(curve.cut.db)}), on average.` : "";
    scope.describe(`Spectrogram of ${session.title}, ${range}; ${notes.length} notes, ${areas.length} areas.${gains}`);
  }

  private themed = (): void => {
    this.scope.repaint();
    this.viewing.showLegend();
    this.overview.ink();
  };

  private async axis(axis: AxisName): Promise<void> {
    this.scope.scale.axis = axis;
    this.scope.moved();
    await this.loadCurve();
  }

  // --- edits

  private turned(amount: number): void {
    this.edits.now = { ...this.edits.now, amount };
    this.player.preview(this.edits.now);
    this.scope.amount = amount;
    this.scope.draw();
    this.eq.draw(this.edits.now);
  }

  /** A part of the mask is seen and heard while the rest is searched. */
  private partly(part: Part | null): void {
    if (!part && this.part) this.player.drop(this.part.found);
    this.part = part;
    this.accept(this.told);
  }

  /** The page is closed: the pending edit is sent now. */
  private leaving = (): void => {
    this.edits.leave();
  };

  /** Shows a state of the server, whose edit was applied. */
  private accept(state: State): void {
    const changed = state.key !== this.session.state.key;
    const curve = changed || state.found !== this.session.state.found;
    this.told = state;
    this.session.state = inPart(state, this.part);
    this.show();
    this.player.accept(this.edits.rest ? null : this.edits.now, changed);
    if (curve) void this.loadCurve();
    this.settleIfNeeded();
  }

  private async loadCurve(): Promise<void> {
    await trying(() => this.eq.load(this.session, this.scope.component));
    this.showCurve();
  }

  private showCurve(): void {
    const { scope, eq } = this;
    eq.draw(this.edits.now);
    if (scope.reach !== eq.reach) {
      scope.reach = eq.reach; // one scale for the curve and for the colours
      scope.draw();
      this.viewing.showLegend();
    }
    this.summarise();
  }

  /** An edit that is not rendered yet is rendered soon, also one of a page that was closed. */
  private settleIfNeeded(): void {
    const { whole, found, edit, part } = this.session.state;
    if (!this.gone && !part && !whole && (found !== null || edit.notes.length)) this.settleSoon();
  }

  /** Starts the full rendering when the edit has not changed for a moment. */
  private settleSoon(): void {
    clearTimeout(this.settle);
    this.settle = window.setTimeout(() => {
      if (!this.gone && !this.told.whole) this.searches.whole();
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

  /** Plays only the time and the frequencies of a box. */
  private solo(box: Box | null): void {
    this.player.solo(box);
    this.loop(box);
    if (!box) return;
    this.player.seek(box.start);
    void this.player.play();
  }

  /** Applies the session after a job, or when the server is reachable again. */
  private stands(told: Session, job: Job | null): void {
    if (!job && this.edits.resend()) return;
    if (job?.kind === "enhance" || job?.kind === "again") this.part = null;
    this.session.saliency = told.saliency;
    const first = this.session.state.found === null && told.state.found !== null;
    this.edits.receive(told.state);
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
      "0": () => viewing.whole(),
      f: (shift) => viewing.zoomFrequencies(shift ? 1.6 : 1 / 1.6),
      s: () => this.marks.solo(this.marks.soloed ? null : this.marks.selected),
      h: () => this.marks.selected && this.marks.harmonics(this.marks.selected),
      "?": () => showShortcuts(),
      Escape: () => {
        viewing.choose("move");
        this.marks.solo(null);
        this.marks.select(null);
      },
      "Ctrl-z": (shift) => void this.edits.step(shift ? "redo" : "undo"),
      "Ctrl-y": () => void this.edits.step("redo"),
    });
  };
}
