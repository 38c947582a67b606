/** The picture: levels, gains or both, with axes and playhead. */

import { isMasked, type Session, type State } from "./api";
import { isDark } from "./colours";
import { clock, h, inked } from "./dom";
import { hzOf, keys, noteLabels, STRINGS } from "./pitch";
import { Scale } from "./scale";
import { Tiles, type Kind, type Paint, type Tile } from "./tiles";

export type View = "level" | "gain" | "both";
export type Layer = "mask" | "saliency";

/** What the picture shows at a position. Levels in dBFS, gain in dB. */
export interface Reading {
  seconds: number;
  hz: number;
  level: number | null; // of the original
  output: number | null;
  gain: number | null;
}

export class Scope {
  readonly element: HTMLElement;
  readonly layer: HTMLElement; // contains the boxes
  readonly scale: Scale;
  readonly axis = h("div", { class: "rows", "aria-hidden": "true" });
  view: View = "both";
  shows: Layer = "mask";
  opacity = 0.85;
  reach = 18; // gain of the full colour, dB
  shown: "input" | "output" = "output";
  amount = 1;
  pitches = false; // note names instead of hertz
  instrument = ""; // whose open strings are marked
  private drawnState: State;
  private before: State | null = null; // shown until the tiles of the state arrive
  private canvas = h("canvas", { role: "img", "aria-label": "Spectrogram" });
  private times = h("div", { class: "times", "aria-hidden": "true" });
  private unit = h("span", { class: "unit", "aria-hidden": "true" }, "Hz");
  private lines = h("div", { class: "strings", "aria-hidden": "true" });
  private head = h("div", { class: "playhead" });
  private loopMark = h("div", { class: "loop-mark", hidden: true });
  private tiles: Tiles;
  private waiting = 0;
  private ground = inked("--ground");
  onchange: () => void = () => {};
  onpaint: () => void = () => {};

  constructor(private session: Session) {
    this.drawnState = session.state;
    this.tiles = new Tiles(session, () => this.draw());
    this.scale = new Scale(session.axes, session.seconds);
    this.scale.move(0, Math.min(session.seconds, Math.max(12, session.seconds / 6)));
    if (session.seconds < 40) this.scale.move(0, session.seconds);
    this.layer = h("div", { class: "layer" }, this.loopMark, this.head);
    const picture = h("div", { class: "picture" }, this.canvas, this.lines, this.layer);
    this.element = h("div", { class: "scope" }, this.axis, picture, this.unit, this.times);
    new ResizeObserver(() => this.resized()).observe(picture);
  }

  /** The component that is drawn, if masks are separate. */
  get component(): string {
    return this.tiles.component;
  }

  set component(component: string) {
    if (component === this.tiles.component) return;
    this.tiles.component = component;
    this.before = null; // its tiles are of the other component
  }

  get state(): State {
    return this.drawnState;
  }

  set state(state: State) {
    if (state.key !== this.drawnState.key || state.part !== this.drawnState.part) this.before = this.drawnState;
    this.drawnState = state;
    if (!state.components.includes(this.component)) this.component = state.components[0] ?? "";
  }

  /** Draws at the next frame. */
  draw(): void {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  repaint(): void {
    this.tiles.forgetColours();
    this.ground = inked("--ground");
    this.draw();
  }

  moved(): void {
    this.draw();
    this.onchange();
  }

  playhead(seconds: number, follow: boolean): void {
    const { scale } = this;
    if (follow && (seconds > scale.end || seconds < scale.start)) {
      scale.move(seconds - 0.04 * (scale.end - scale.start));
      this.moved();
    }
    const x = scale.x(seconds);
    this.head.style.transform = `translateX(${x.toFixed(1)}px)`;
    this.head.hidden = x < 0 || x > scale.width;
  }

  loop(region: { start: number; end: number } | null): void {
    this.loopMark.hidden = !region;
    if (!region) return;
    const left = this.scale.x(region.start);
    this.loopMark.style.left = `${left}px`;
    this.loopMark.style.width = `${this.scale.x(region.end) - left}px`;
  }

  /** Whether there is a mask to show. */
  get masked(): boolean {
    return isMasked(this.state);
  }

  /** Whether gains or saliency are drawn. */
  get covered(): boolean {
    if (this.view === "level") return false;
    return this.shows === "saliency" ? this.session.saliency !== null : this.masked && this.amount !== 0;
  }

  /** Whether the output is the rendering itself, or drawn from levels and gains until that is there. */
  get exact(): boolean {
    return this.state.whole && this.amount === this.state.edit.amount;
  }

  /** The tiles of the levels: those of the rendering, or of the original. */
  private get levels(): "input" | "output" {
    return this.shown === "output" && this.exact ? "output" : "input";
  }

  /** Describes the picture in words. */
  describe(text: string): void {
    this.canvas.setAttribute("aria-label", text);
  }

  /** Returns what the picture shows at a position. */
  read(x: number, y: number): Reading {
    const { scale, session, state } = this;
    const reading: Reading = { seconds: scale.seconds(x), hz: scale.hz(y), level: null, output: null, gain: null };
    const level = this.zoomLevel;
    const span = session.axes.finest_s * 2 ** level * session.axes.columns;
    const number = Math.floor(reading.seconds / span);
    const column = Math.floor((reading.seconds / span - number) * session.axes.columns);
    const row = Math.round(Math.max(0, Math.min(1, scale.share(reading.hz))) * (session.axes.rows - 1));
    // A tile that is not here is requested, and read once it is drawn.
    const value = (kind: Kind): number | null =>
      this.tiles.get(kind, scale.axis, level, number, state)?.bytes?.[row * session.axes.columns + column] ?? null;
    const input = value("input");
    if (input !== null) reading.level = input / 2 - 110;
    const mask = this.masked ? value("mask") : null;
    if (mask !== null) reading.gain = ((mask - 128) / 4) * this.amount;
    const output = this.exact ? value("output") : null;
    if (output !== null) reading.output = output / 2 - 110;
    else if (reading.level !== null && reading.gain !== null) reading.output = reading.level + reading.gain + this.lift;
    return reading;
  }

  /** Returns the frequency of the loudest partial in a box, or null if its levels are not here. */
  partial({ start, end, low, high }: { start: number; end: number; low: number; high: number }): number | null {
    const { scale, session } = this;
    const { rows, columns, finest_s } = session.axes;
    const level = this.zoomLevel;
    const span = finest_s * 2 ** level * columns;
    const sums = new Map<number, number>();
    const row = (hz: number) => Math.round(Math.max(0, Math.min(1, scale.share(hz))) * (rows - 1));
    for (let n = 0; n < 24; n++) {
      const at = (start + ((n + 0.5) / 24) * (end - start)) / span;
      const tile = this.tiles.here("input", scale.axis, level, Math.floor(at), this.state)?.bytes;
      const column = Math.floor((at - Math.floor(at)) * columns);
      for (let r = row(low); tile && r <= row(high); r++) sums.set(r, (sums.get(r) ?? 0) + 10 ** (tile[r * columns + column] / 20));
    }
    const best = [...sums].sort((a, b) => b[1] - a[1])[0];
    if (!best) return null;
    return scale.frequency(best[0] / (rows - 1));
  }

  private get lift(): number {
    return this.amount === 0 ? 0 : this.state.levels.output_db;
  }

  private get zoomLevel(): number {
    const { scale, session } = this;
    const perPixel = (scale.end - scale.start) / Math.max(1, this.canvas.width);
    return Math.max(0, Math.min(session.axes.levels - 1, Math.floor(Math.log2(perPixel / session.axes.finest_s) + 0.3)));
  }

  private resized(): void {
    const box = this.layer.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    this.scale.width = box.width;
    this.scale.height = box.height;
    this.moved();
  }

  private paint(): void {
    const context = this.canvas.getContext("2d", { alpha: false });
    if (!context || !this.canvas.width) return;
    this.tiles.begin();
    const level = this.zoomLevel;
    context.fillStyle = this.ground;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    const flat = this.view === "gain" && this.covered;
    if (!flat) this.layTiles(context, this.levels, level);
    if (this.covered) {
      context.globalAlpha = flat ? 1 : this.opacity;
      this.layTiles(context, this.shows, level);
      context.globalAlpha = 1;
    }
    this.canvas.setAttribute("aria-busy", String(!this.tiles.complete));
    this.label();
    this.onpaint();
    this.tiles.trim();
  }

  private layTiles(context: CanvasRenderingContext2D, kind: Kind, level: number): void {
    const { scale, session } = this;
    const span = session.axes.finest_s * 2 ** level * session.axes.columns;
    const last = Math.min(Math.ceil(session.seconds / span), Math.ceil(scale.end / span));
    for (let number = Math.floor(scale.start / span); number < last; number++) {
      if (this.lay(context, kind, level, number, this.state, true)) continue;
      // Until this tile arrives, a coarser one is shown, or that of the state before.
      if (this.before && this.lay(context, kind, level, number, this.before, false)) continue;
      for (let up = 1; up < 6 && level + up < session.axes.levels; up++) {
        const parent = number >> up;
        if (!this.tiles.here(kind, scale.axis, level + up, parent, this.state)) continue;
        context.save();
        context.beginPath();
        const ratio = this.canvas.width / scale.width;
        const x = scale.x(number * span) * ratio;
        context.rect(x, 0, scale.x((number + 1) * span) * ratio - x, this.canvas.height);
        context.clip();
        this.lay(context, kind, level + up, parent, this.state, true);
        context.restore();
        break;
      }
    }
  }

  /** Draws a tile that is here; one that is not is requested if `wanted`. */
  private lay(
    context: CanvasRenderingContext2D,
    kind: Kind,
    level: number,
    number: number,
    state: State,
    wanted: boolean,
  ): boolean {
    const { scale, session } = this;
    const find = (of: Kind) =>
      wanted ? this.tiles.get(of, scale.axis, level, number, state) : this.tiles.here(of, scale.axis, level, number, state);
    // Until the gains of an edit arrive, levels are drawn with those before, not as the original.
    const findGains = () => find("mask") ?? (this.before && this.tiles.here("mask", scale.axis, level, number, this.before));
    const tile = find(kind);
    if (!tile) return false;
    const span = session.axes.finest_s * 2 ** level * session.axes.columns;
    const ratio = this.canvas.width / scale.width;
    const left = scale.x(number * span) * ratio;
    const right = scale.x((number + 1) * span) * ratio;
    const { rows, columns } = session.axes;
    const [top, height] = [(1 - scale.top) * rows, (scale.top - scale.bottom) * rows];
    context.drawImage(this.coloured(tile, kind, find, findGains), 0, top, columns, height, left, 0, right - left, this.canvas.height);
    return true;
  }

  private coloured(tile: Tile, kind: Kind, find: (kind: Kind) => Tile | null, findGains: () => Tile | null): HTMLCanvasElement {
    const paint: Paint = {
      dark: isDark(),
      grey: this.covered,
      flat: this.view === "gain",
      amount: this.amount,
      reach: this.reach,
      lift: this.lift,
    };
    if (kind === "mask" || kind === "saliency") return this.tiles.gains(tile, kind, paint, find(this.levels));
    // Without a rendering, the output is drawn from the original's levels and the mask.
    const preview = kind === "input" && this.shown === "output" && !this.exact && this.masked;
    return this.tiles.levels(tile, paint, preview ? findGains() : null);
  }

  private label(): void {
    const { scale } = this;
    const labels = this.pitches
      ? noteLabels(scale, this.instrument)
      : scale.ticks().map((hz) => ({ hz, name: hz >= 1000 ? `${hz / 1000}k` : String(hz), open: false }));
    this.unit.textContent = this.pitches ? "Note" : "Hz";
    this.axis.replaceChildren(
      ...(this.pitches ? keys(scale) : []),
      ...labels.map(({ hz, name, open }) => {
        const label = h("span", { class: open ? "open" : "" }, name);
        label.style.top = `${Math.max(6, Math.min(scale.height - 6, scale.y(hz)))}px`;
        return label;
      }),
    );
    this.axis.classList.toggle("piano", this.pitches);
    const open = (this.pitches && STRINGS[this.instrument]) || [];
    this.lines.replaceChildren(
      ...open.filter((midi) => scale.shows(hzOf(midi))).map((midi) => {
        const line = h("i", {});
        line.style.top = `${scale.y(hzOf(midi))}px`;
        return line;
      }),
    );
    const { step, at } = scale.times();
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    this.times.replaceChildren(
      ...at.map((seconds) => {
        const label = h("span", {}, clock(seconds, digits));
        const x = scale.x(seconds);
        label.style.left = `${x}px`;
        if (x < 16) label.classList.add("first");
        if (x > scale.width - 16) label.classList.add("last");
        return label;
      }),
    );
  }
}
