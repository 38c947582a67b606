/** The page of one recording: see it, hear it, change it. */

import { cancel, capital, get, Listening, over, post, put, trying, type Edit, type Formats, type Job, type ModelCard, type Session, type State } from "./api";
import { arrange, button, clock, decibels, h, hertz, icon, say } from "./dom";
import { legend } from "./legend";
import { boxed, newId, Notes, type Box, type Tool } from "./notes";
import { AverageEq, certificateCard, notesCard, takeCard } from "./panels";
import { Progress } from "./progress";
import { follow } from "./drawing";
import { Overview } from "./overview";
import { Player, type Way } from "./player";
import type { AxisName } from "./scale";
import { Scope, type Overlay } from "./scope";
import { header } from "./header";

const WAYS: [Way, string, string][] = [
  ["input", "Original", "1"],
  ["output", "Enhanced", "2"],
  ["difference", "What changed", "3"],
];
const TOOLS: [Tool, string, string, string][] = [
  ["move", "Move", "hand", "Drag to scroll, click to go there (V)"],
  ["note", "Note", "note", "Draw a block of gain (N)"],
  ["area", "Area", "area", "Turn the found mask up or down in a part (A)"],
  ["loop", "Loop", "loop", "Repeat a stretch (L)"],
];
const SETTLE_MS = 500;

export class SessionPage {
  readonly element = h("main", { class: "session" });
  private player: Player;
  private scope: Scope;
  private eq: AverageEq;
  private notes: Notes;
  private edit: Edit;
  private selected: string | null = null;
  private tool: Tool = "move";
  private job: Job | null = null;
  private formats: Formats = { sounds: [], equalisers: [] };
  private models: ModelCard[] = [];
  private listening: Listening;
  private pending: Edit | null = null; // to be kept, once the one before is
  private saving: Promise<void> = Promise.resolve();
  private settle = 0;
  private frame = 0;
  private gone = false;

  // parts of the page that change
  private playButton = button("Play", "play", () => this.player.toggle(), { class: "play", bare: true });
  private time = h("span", { class: "time" });
  private ways = h("div", { class: "segmented", role: "group", "aria-label": "What is heard" });
  private amount = h("input", { type: "range", id: "amount", min: "0", max: "1", step: "0.01" });
  private amountFigure = h("output", { for: "amount" });
  private tools = h("div", { class: "segmented tools", role: "group", "aria-label": "Tool" });
  private enhanceButton = button("Enhance", null, () => void this.enhance(false), { class: "primary" });
  private undoButton = button("Undo", "undo", () => void this.step("undo"), { bare: true });
  private redoButton = button("Redo", "redo", () => void this.step("redo"), { bare: true });
  private loopButton = button("Loop", "loop", () => this.toggleLoop(), { bare: true, "aria-pressed": "false" });
  private progress = new Progress(() => cancel(this.job));
  private progressSlot = h("div", { class: "progress-slot" });
  private levelNote = h("p", { class: "level-note quiet" });
  private readout = h("span", { class: "readout", "aria-hidden": "true" });
  private legendSlot = h("div", { class: "legend-slot" });
  private side = h("aside", { class: "side", "aria-label": "Findings and changes" });
  private overview: Overview;

  constructor(private session: Session) {
    this.edit = session.state.edit;
    this.player = new Player(session);
    this.scope = new Scope(session);
    this.eq = new AverageEq(this.scope.scale);
    this.overview = new Overview(this.player, {
      looped: (region) => this.setLoop(region, false),
      moved: (start) => {
        this.scope.scale.move(start);
        this.scope.moved();
      },
    });
    this.scope.amount = this.edit.amount;
    const page = this;
    this.notes = new Notes(this.scope.layer, this.scope.scale, {
      get edit() {
        return page.edit;
      },
      get selected() {
        return page.selected;
      },
      select: (id) => this.select(id),
      preview: (edit) => this.preview(edit),
      keep: (edit) => void this.keep(edit),
    });
    this.build();
    this.connect();
    this.listening = new Listening(session.id, (job) => void this.told(job), () => void this.back());
    for (const job of session.jobs) void this.told(job);
    void this.load();
  }

  destroy(): void {
    this.gone = true;
    cancelAnimationFrame(this.frame);
    this.listening.close();
    this.player.forget();
    this.overview.destroy();
    document.removeEventListener("keydown", this.typed);
    document.removeEventListener("theme", this.themed);
    removeEventListener("pagehide", this.leaving);
    this.leaving();
  }

  // --- making the page

  private build(): void {
    const { session } = this;
    document.title = `${session.title} · Tonewood`;
    for (const [way, name, key] of WAYS) {
      this.ways.append(this.choiceButton(name, () => this.listenTo(way), { "data-way": way, title: `${name} (${key})` }, key));
    }
    for (const [tool, name, glyph, title] of TOOLS) {
      const element = this.choiceButton(name, () => this.choose(tool), { "data-tool": tool, title });
      element.prepend(icon(glyph));
      this.tools.append(element);
    }
    const { sound } = session;
    const facts = `${clock(session.seconds, 0)} · ${sound.rate / 1000} kHz · ${["", "mono", "stereo"][sound.channels] ?? `${sound.channels} channels`} · ${encoding(sound.format)}`;
    this.element.append(
      header(
        [h("h1", { class: "title" }, session.title), h("span", { class: "facts quiet" }, facts)],
        [h("div", { class: "enhance" }, this.modelChoice(), this.enhanceButton)],
      ),
      h(
        "div",
        { class: "desk" },
        h(
          "div",
          { class: "stage" },
          h(
            "div",
            { class: "bar transport" },
            this.playButton,
            this.time,
            this.ways,
            this.loopButton,
            h(
              "div",
              { class: "amount" },
              h("label", { for: "amount" }, "Amount"),
              this.amount,
              this.amountFigure,
            ),
          ),
          this.progressSlot,
          this.overview.element,
          h("div", { class: "seeing" }, this.scope.element, this.eq.element),
          h(
            "div",
            { class: "bar under" },
            this.tools,
            this.undoButton,
            this.redoButton,
            button("Zoom out", "minus", () => this.zoom(1.6), { bare: true }),
            button("Zoom in", "plus", () => this.zoom(1 / 1.6), { bare: true }),
            h("span", { class: "gap" }),
            this.readout,
            this.legendSlot,
          ),
          h(
            "div",
            { class: "bar under" },
            this.select_("Picture of", ["input", "output"], ["the original", "the enhanced"], (value) => {
              this.scope.shown = value as "input" | "output";
              this.scope.draw();
            }),
            this.select_("Overlay", ["mask", "saliency", "none"], ["the mask", "what the scorer heard", "nothing"], (value) =>
              this.overlay(value as Overlay),
            ),
            this.select_("Frequencies", ["log", "mel"], ["in octaves", "in mel"], (value) => void this.axis(value as AxisName)),
            h("span", { class: "gap" }),
          ),
          this.levelNote,
        ),
        this.side,
      ),
    );
    this.choose("move");
    this.listenTo(session.state.found === null ? "input" : "output");
    this.show();
  }

  private choiceButton(name: string, act: () => void, props: Record<string, string>, key?: string): HTMLElement {
    return h(
      "button",
      { type: "button", "aria-pressed": "false", ...props, onclick: act },
      h("span", {}, name),
      key && h("kbd", { "aria-hidden": "true" }, key),
    );
  }

  private select_(label: string, values: string[], names: string[], act: (value: string) => void): HTMLElement {
    const select = h(
      "select",
      { "aria-label": label, "data-select": label.toLowerCase() },
      ...values.map((value, n) => h("option", { value }, names[n])),
    );
    select.addEventListener("change", () => act(select.value));
    return h("label", { class: "choice" }, h("span", { "aria-hidden": "true" }, label), select);
  }

  private modelChoice(): HTMLElement {
    const select = h("select", { "aria-label": "Model" }, h("option", {}, this.session.model));
    void get<ModelCard[]>("/models").then((models) => {
      this.models = models;
      select.replaceChildren(
        ...models.map((model) =>
          h("option", { value: model.name, selected: model.name === this.session.model, title: model.domain ?? "" }, model.name),
        ),
      );
    });
    select.addEventListener("change", () =>
      void trying(async () => {
        const told = await put<Session>(`/sessions/${this.session.id}/model`, { model: select.value });
        this.session.model = told.model;
        this.session.saliency = told.saliency;
        const domain = this.models.find((model) => model.name === told.model)?.domain;
        say(`The next search uses ${told.model}${domain ? `: ${domain}` : ""}.`);
      }),
    );
    return select;
  }

  private connect(): void {
    const { player, scope } = this;
    player.addEventListener("play", () => this.playing());
    player.addEventListener("pause", () => this.playing());
    player.addEventListener("levels", () => this.tellLevels());
    player.addEventListener("timeupdate", () => this.tick());
    player.addEventListener("lost", () => say("The sound could not be had from the studio: is it still running?", "error"));
    scope.onchange = () => {
      this.notes.lay();
      scope.loop(player.loop);
      this.eq.draw(this.edit.amount);
      scope.playhead(player.position, false);
      this.overview.window(scope.scale);
    };
    this.amount.addEventListener("input", () => {
      const value = Number(this.amount.value);
      this.edit = { ...this.edit, amount: value };
      player.amount = value;
      scope.amount = value;
      this.showAmount();
      scope.draw();
      this.eq.draw(value);
      void player.refresh();
    });
    this.amount.addEventListener("change", () => void this.keep(this.edit));
    scope.layer.addEventListener("pointerdown", (event) => this.pressed(event));
    scope.layer.addEventListener("pointermove", (event) => this.read(event));
    scope.layer.addEventListener("pointerleave", () => (this.readout.textContent = ""));
    scope.element.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
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
      this.formats = formats;
      this.overview.draw(peaks);
      this.overview.window(this.scope.scale);
      this.eq.draw(this.edit.amount);
      this.panels();
      performance.mark("page-ready");
    });
  }

  private themed = (): void => {
    this.scope.repaint();
    this.showLegend();
    this.overview.ink();
  };

  // --- showing

  private show(): void {
    const { state } = this.session;
    this.scope.state = state;
    this.amount.value = String(this.edit.amount);
    this.scope.amount = this.edit.amount;
    this.showAmount();
    this.undoButton.disabled = !state.undo;
    this.redoButton.disabled = !state.redo;
    this.enhanceButton.classList.toggle("primary", state.found === null);
    (this.enhanceButton.lastChild as HTMLElement).textContent = state.found === null ? "Enhance" : "Enhance anew";
    this.notes.lay();
    this.showLegend();
    this.panels();
    this.tellLevels();
    this.scope.draw();
    this.eq.draw(this.edit.amount);
    this.tick();
  }

  private showAmount(): void {
    const text = `${Math.round(this.edit.amount * 100)} %`;
    this.amountFigure.textContent = text;
    this.amount.setAttribute("aria-valuetext", text);
    this.amount.style.setProperty("--share", `${this.edit.amount * 100}%`);
  }

  private panels(): void {
    const desk = {
      edit: this.edit,
      selected: this.selected,
      select: (id: string | null) => {
        this.select(id);
        if (id) this.reveal(id);
      },
      preview: (edit: Edit) => this.preview(edit),
      keep: (edit: Edit) => void this.keep(edit),
    };
    const { state } = this.session;
    const focus = document.activeElement?.getAttribute("aria-label");
    this.side.replaceChildren(
      certificateCard(state.certificate, () => void this.enhance(true)),
      notesCard(desk, {
        add: () => this.addNote(),
        addArea: () => this.addArea(null),
        again: state.found === null ? null : () => void this.again(),
        change: (id, turn, keep) => this.notes.change(id, turn, keep),
        remove: (id) => this.notes.remove(id),
      }),
      takeCard(this.session, this.formats),
    );
    if (focus && document.activeElement === document.body) {
      this.side.querySelector<HTMLElement>(`[aria-label="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    }
  }

  private showLegend(): void {
    this.legendSlot.replaceChildren(legend(this.scope.overlay));
  }

  private tellLevels(): void {
    const { levels } = this.player;
    const told: string[] = [];
    if (this.session.state.found !== null || this.edit.notes.length) {
      if (this.player.way === "difference") told.push(`What changed is heard ${decibels(levels.difference_db)} louder than it is.`);
      else if (levels.held) {
        told.push(`The peak’s ceiling keeps the output ${decibels(-levels.input_db)} below the original; here both are heard equally loud.`);
      } else told.push("Original and enhanced are heard equally loud.");
      if (!levels.exact) told.push("Its level is estimated, within half a decibel, until all of it is rendered.");
    }
    if (this.session.sound.clipped) told.push("The recording is clipped; what was cut off does not come back.");
    this.levelNote.textContent = told.join(" ");
  }

  private tick(): void {
    const at = this.player.position;
    this.time.replaceChildren(h("b", {}, clock(at)), h("span", {}, ` / ${clock(this.session.seconds)}`));
    this.scope.playhead(at, this.player.playing);
    if (this.player.playing && !this.gone) {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.tick());
    }
  }

  private playing(): void {
    const { playing } = this.player;
    this.playButton.replaceChildren(icon(playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.playButton.title = playing ? "Pause (space)" : "Play (space)";
    this.tick();
  }

  private read(event: PointerEvent): void {
    const box = this.scope.layer.getBoundingClientRect();
    const { scale } = this.scope;
    const hz = scale.hz(event.clientY - box.top);
    this.readout.textContent = `${clock(scale.seconds(event.clientX - box.left), 2)}  ${hertz(hz)}`;
  }

  // --- hearing

  private listenTo(way: Way): void {
    this.player.listen(way);
    for (const element of this.ways.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-way") === way));
    }
    this.tellLevels();
  }

  private setLoop(region: { start: number; end: number } | null, redraw = true): void {
    this.player.loop = region;
    this.loopButton.setAttribute("aria-pressed", String(region !== null));
    this.scope.loop(region);
    if (redraw) this.overview.loop(region);
    if (region && this.player.playing) this.player.seek(region.start);
    else if (this.player.playing) void this.player.refresh();
  }

  private toggleLoop(): void {
    if (this.player.loop) this.setLoop(null);
    else {
      const { start, end } = this.scope.scale;
      const at = this.player.position;
      const from = at >= start && at < end ? at : start;
      this.setLoop({ start: from, end: Math.min(end, from + Math.max(2, (end - start) / 4)) });
      say("Looping; drag its edges above the picture, or choose the Loop tool and draw.");
    }
  }

  // --- changing

  private preview(edit: Edit): void {
    this.edit = edit;
    this.notes.lay();
  }

  private keep(edit: Edit): Promise<void> {
    this.edit = edit;
    this.notes.lay();
    this.panels();
    const idle = this.pending === null;
    this.pending = edit;
    if (idle) this.saving = this.saving.then(() => this.send());
    return this.saving;
  }

  private async send(): Promise<void> {
    const edit = this.pending;
    this.pending = null;
    if (!edit) return;
    await trying(async () => {
      const state = await put<State>(`/sessions/${this.session.id}/edit`, edit);
      this.accept(state, this.edit === edit);
    });
  }

  /** The page goes: what was not sent yet is sent at once. */
  private leaving = (): void => {
    void this.send();
  };

  /** Takes up a state that the server told. */
  private accept(state: State, edit = true): void {
    const changed = state.key !== this.session.state.key;
    const curve = changed || state.found !== this.session.state.found;
    this.session.state = state;
    if (edit && !this.notes.busy) {
      this.edit = state.edit;
      this.player.amount = null;
    }
    this.player.levels = state.levels;
    this.show();
    if (changed) void this.player.refresh();
    if (curve) void this.eq.load(this.session).then(() => this.eq.draw(this.edit.amount));
    if (!state.whole && (state.found !== null || state.edit.notes.length)) this.settleSoon();
  }

  /** Has the whole rendered when the edit has rested for a moment. */
  private settleSoon(): void {
    clearTimeout(this.settle);
    this.settle = window.setTimeout(() => {
      if (!this.gone && !this.session.state.whole) void trying(() => post(`/sessions/${this.session.id}/whole`));
    }, SETTLE_MS);
  }

  private async step(way: "undo" | "redo"): Promise<void> {
    await this.saving;
    await trying(async () => this.accept(await post<State>(`/sessions/${this.session.id}/${way}`)));
  }

  private async enhance(force: boolean): Promise<void> {
    await trying(() => post(`/sessions/${this.session.id}/enhance`, { force }));
  }

  private async again(): Promise<void> {
    await this.saving;
    const pinned = this.edit.notes.filter((note) => note.pinned).length;
    const others = this.edit.notes.length - pinned;
    say(
      `Searching again around ${pinned || "no"} pinned note${pinned === 1 ? "" : "s"}` +
        (others ? `; ${others} that ${others === 1 ? "is" : "are"} not pinned will go. Undo brings all back.` : "."),
    );
    await trying(() => post(`/sessions/${this.session.id}/again`, {}));
  }

  private async told(job: Job): Promise<void> {
    if (this.gone || (job.session !== this.session.id && job.session !== null)) return;
    if (job.session === null) return;
    if (!over(job)) {
      if (job.kind !== "whole") this.job = job;
    } else if (this.job?.id === job.id) this.job = null;
    this.showJob();
    if (job.state === "failed") say(capital(String(job.told.error)), "error");
    if (job.state === "cancelled" && job.kind !== "whole") say("Cancelled; nothing was changed.");
    if (job.state !== "done") return;
    await trying(async () => {
      const told = await get<Session>(`/sessions/${this.session.id}`);
      this.session.saliency = told.saliency;
      const first = this.session.state.found === null && told.state.found !== null;
      this.accept(told.state, JSON.stringify(this.edit) === JSON.stringify(this.session.state.edit) || job.kind !== "whole");
      if (first) this.listenTo("output");
      if (job.kind === "explain") this.scope.draw();
    });
  }

  private showJob(): void {
    if (this.job) this.progress.search(this.job);
    arrange(this.progressSlot, this.job ? [this.progress.element] : []);
  }

  /** The server is back: whatever was under way there may be no more. */
  private async back(): Promise<void> {
    const told = await trying(() => get<Session>(`/sessions/${this.session.id}`));
    if (!told || this.gone) return;
    this.job = null;
    this.showJob();
    for (const job of told.jobs) void this.told(job);
    this.accept(told.state);
  }

  private select(id: string | null): void {
    if (this.selected === id) return;
    this.selected = id;
    this.notes.lay();
    for (const row of this.side.querySelectorAll<HTMLElement>("[data-note]")) {
      row.classList.toggle("selected", row.dataset.note === id);
    }
  }

  private reveal(id: string): void {
    const note = this.edit.notes.find((it) => it.id === id);
    const { scale } = this.scope;
    if (note && (note.seconds < scale.start || note.seconds > scale.end)) {
      scale.move(note.seconds - (scale.end - scale.start) / 2);
      this.scope.moved();
    }
    this.notes.focus(id);
  }

  private addNote(box?: Box): void {
    const { scale } = this.scope;
    const span = scale.end - scale.start;
    const at = this.player.position >= scale.start && this.player.position <= scale.end ? this.player.position : scale.start;
    const place = box ?? { start: at, end: Math.min(scale.duration, at + Math.max(0.3, span / 8)), low: 700, high: 1400 };
    const id = newId();
    const note = boxed({ id, seconds: 0, hz: 0, width_s: 0, height_hz: 0, gain_db: 6, pinned: false, muted: false }, place);
    this.selected = id;
    void this.keep({ ...this.edit, notes: [...this.edit.notes, note] });
    this.notes.focus(id);
  }

  private addArea(box: Box | null): void {
    const area = box
      ? { id: newId(), start_s: Math.max(0, box.start), end_s: box.end, low_hz: box.low, high_hz: box.high, amount: 0.5 }
      : { id: newId(), start_s: 0, end_s: 86_400, low_hz: 2000, high_hz: Math.min(20_000, this.scope.scale.high), amount: 0.5 };
    void this.keep({ ...this.edit, areas: [...this.edit.areas, area] });
  }

  // --- pointer and keys

  private choose(tool: Tool): void {
    this.tool = tool;
    this.scope.layer.dataset.tool = tool;
    for (const element of this.tools.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-tool") === tool));
    }
  }

  private pressed(event: PointerEvent): void {
    if (event.button !== 0 || (event.target as HTMLElement).closest(".note")) return;
    const tool = event.shiftKey ? "loop" : this.tool;
    follow(event, this.scope.layer, this.scope.scale, tool, {
      moved: () => this.scope.moved(),
      clicked: (seconds) => {
        this.select(null);
        this.player.seek(seconds);
      },
      drawn: (box) => {
        if (tool === "note") this.addNote(box);
        if (tool === "area") this.addArea(box);
        if (tool === "loop" && box.end - box.start > 0.03) this.setLoop(box);
        this.choose("move");
      },
    });
  }

  private wheeled(event: WheelEvent): void {
    const { scale, layer } = this.scope;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!sideways && !event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    if (sideways) {
      const by = event.deltaX || event.deltaY;
      scale.move(scale.start + (by / scale.width) * (scale.end - scale.start));
    } else {
      const x = event.clientX - layer.getBoundingClientRect().left;
      scale.zoom(Math.exp(event.deltaY / 300), scale.seconds(x));
    }
    this.scope.moved();
  }

  private zoom(factor: number): void {
    const { scale } = this.scope;
    const at = this.player.position;
    const middle = (scale.start + scale.end) / 2;
    scale.zoom(factor, at > scale.start && at < scale.end ? at : middle);
    this.scope.moved();
  }

  private overlay(overlay: Overlay): void {
    this.scope.overlay = overlay;
    this.showLegend();
    this.scope.draw();
    if (overlay === "saliency" && !this.session.saliency) {
      void trying(() => post(`/sessions/${this.session.id}/explain`));
    }
  }

  private async axis(axis: AxisName): Promise<void> {
    this.scope.scale.axis = axis;
    this.scope.moved();
    await trying(() => this.eq.load(this.session));
    this.eq.draw(this.edit.amount);
  }

  private typed = (event: KeyboardEvent): void => {
    const target = event.target as HTMLElement;
    const writes = target.matches("input:not([type=range]), textarea, select, [contenteditable]");
    if (document.querySelector("dialog[open]") || writes) return;
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "z") {
      event.preventDefault();
      void this.step(event.shiftKey ? "redo" : "undo");
      return;
    }
    if (command && event.key.toLowerCase() === "y") {
      event.preventDefault();
      void this.step("redo");
      return;
    }
    if (command || event.altKey) return;
    const pressed = event.key === " " && target.matches("button, a, summary") && target.matches(":focus-visible");
    if (pressed && !target.matches(".note, .play")) return;
    const ranged = target.matches("input[type=range]");
    const acts: Record<string, () => void> = {
      " ": () => this.player.toggle(),
      "1": () => this.listenTo("input"),
      "2": () => this.listenTo("output"),
      "3": () => this.listenTo("difference"),
      v: () => this.choose("move"),
      n: () => this.choose("note"),
      a: () => this.choose("area"),
      l: () => this.choose("loop"),
      "+": () => this.zoom(1 / 1.6),
      "=": () => this.zoom(1 / 1.6),
      "-": () => this.zoom(1.6),
      Escape: () => {
        this.choose("move");
        this.select(null);
      },
    };
    if (!ranged) {
      const by = event.shiftKey ? 5 : 1;
      acts.ArrowLeft = () => this.go(this.player.position - by);
      acts.ArrowRight = () => this.go(this.player.position + by);
      acts.Home = () => this.go(0);
      acts.End = () => this.go(this.session.seconds - 0.05);
    }
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };

  private go(seconds: number): void {
    const { scale } = this.scope;
    this.player.seek(seconds);
    const at = this.player.position;
    if (at < scale.start || at > scale.end) {
      scale.move(at - (scale.end - scale.start) / 3);
      this.scope.moved();
    }
  }
}

/** libsndfile's name of an encoding, as people say it. */
function encoding(format: string): string {
  const [container, subtype = ""] = format.split(" ");
  const depth = /^PCM_[SU]?(\d+)$/.exec(subtype);
  if (depth) return `${container} ${depth[1]} bit`;
  if (subtype === "FLOAT" || subtype === "DOUBLE") return `${container} float`;
  return container === "OGG" ? capital(subtype.toLowerCase()) : container;
}
