/** The picture: spectrogram tiles, overlays, axes and playhead. */

import type { Session, State } from "./api";
import { gainColours, isDark, levelColours, levelShare } from "./colours";
import { clock, h, inked } from "./dom";
import { Scale } from "./scale";

export type Overlay = "none" | "mask" | "saliency";
type Kind = "input" | "output" | "mask" | "saliency";

interface Tile {
  bytes: Uint8Array | null;
  canvas: HTMLCanvasElement | null;
  colours: string; // key of the colours on the canvas
  used: number;
  under: string; // the tile of the recording below it
}

const MOST_TILES = 160;
export const REACH_DB = 18; // gain of the overlay's full colour

export class Scope {
  readonly element: HTMLElement;
  readonly layer: HTMLElement; // contains the boxes
  readonly scale: Scale;
  overlay: Overlay = "mask";
  shown: "input" | "output" = "input";
  amount = 1;
  state: State;
  private canvas = h("canvas", { "aria-hidden": "true" });
  private rows = h("div", { class: "rows", "aria-hidden": "true" });
  private times = h("div", { class: "times", "aria-hidden": "true" });
  private head = h("div", { class: "playhead" });
  private loopMark = h("div", { class: "loop-mark", hidden: true });
  private tiles = new Map<string, Tile>();
  private top = 190;
  private turn = 0;
  private waiting = 0;
  private ground = inked("--ground");
  onchange: () => void = () => {};

  constructor(private session: Session) {
    this.state = session.state;
    this.scale = new Scale(session.axes, session.seconds);
    this.scale.move(0, Math.min(session.seconds, Math.max(12, session.seconds / 6)));
    if (session.seconds < 40) this.scale.move(0, session.seconds);
    this.layer = h("div", { class: "layer" }, this.loopMark, this.head);
    const picture = h("div", { class: "picture" }, this.canvas, this.layer);
    this.element = h("div", { class: "scope" }, this.rows, picture, h("span", { class: "unit", "aria-hidden": "true" }, "Hz"), this.times);
    new ResizeObserver(() => this.resized()).observe(picture);
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
    for (const tile of this.tiles.values()) tile.colours = "";
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
    this.turn += 1;
    const { scale, session } = this;
    const { axes } = session;
    const perPixel = (scale.end - scale.start) / this.canvas.width;
    const level = Math.max(0, Math.min(axes.levels - 1, Math.floor(Math.log2(perPixel / axes.finest_s) + 0.3)));
    context.fillStyle = this.ground;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    this.layTiles(context, this.shown === "output" && this.state.whole ? "output" : "input", level);
    if (this.overlay === "mask" && this.covered) this.layTiles(context, "mask", level);
    if (this.overlay === "saliency" && session.saliency) this.layTiles(context, "saliency", level);
    this.label();
    this.trim();
  }

  private layTiles(context: CanvasRenderingContext2D, kind: Kind, level: number): void {
    const { scale, session } = this;
    const span = session.axes.finest_s * 2 ** level * session.axes.columns;
    const last = Math.min(Math.ceil(session.seconds / span), Math.ceil(scale.end / span));
    for (let number = Math.floor(scale.start / span); number < last; number++) {
      if (this.lay(context, kind, level, number)) continue;
      // A coarser tile is shown until this one arrives.
      for (let up = 1; up < 6 && level + up < session.axes.levels; up++) {
        const parent = number >> up;
        if (this.tiles.get(this.name(kind, level + up, parent))?.bytes) {
          context.save();
          context.beginPath();
          const ratio = this.canvas.width / scale.width;
          const x = scale.x(number * span) * ratio;
          context.rect(x, 0, scale.x((number + 1) * span) * ratio - x, this.canvas.height);
          context.clip();
          this.lay(context, kind, level + up, parent);
          context.restore();
          break;
        }
      }
    }
  }

  /** Draws a tile, or requests it. */
  private lay(context: CanvasRenderingContext2D, kind: Kind, level: number, number: number): boolean {
    const name = this.name(kind, level, number);
    let tile = this.tiles.get(name);
    if (!tile) {
      tile = { bytes: null, canvas: null, colours: "", used: this.turn, under: this.name("input", level, number) };
      this.tiles.set(name, tile);
      void this.fetchTile(name, tile, kind === "input" || kind === "output");
    }
    tile.used = this.turn;
    if (!tile.bytes) return false;
    const { axes } = this.session;
    const span = axes.finest_s * 2 ** level * axes.columns;
    const ratio = this.canvas.width / this.scale.width;
    const left = this.scale.x(number * span) * ratio;
    const right = this.scale.x((number + 1) * span) * ratio;
    context.drawImage(this.coloured(tile, kind), left, 0, right - left, this.canvas.height);
    return true;
  }

  private coloured(tile: Tile, kind: Kind): HTMLCanvasElement {
    const { rows, columns } = this.session.axes;
    const level = kind === "input" || kind === "output";
    const amount = kind === "mask" ? this.amount : 1;
    const grey = this.covered;
    const under = level ? null : (this.tiles.get(tile.under)?.bytes ?? null);
    const colours = level
      ? `${isDark()}${this.top}${grey}`
      : `${isDark()}${kind}${amount.toFixed(3)}${under ? this.top : ""}`;
    if (tile.canvas && tile.colours === colours) return tile.canvas;
    tile.canvas ??= h("canvas", { width: columns, height: rows });
    tile.colours = colours;
    const table = level ? levelColours(this.top, grey) : gainColours(amount, kind === "mask" ? REACH_DB : 31);
    // Where nothing sounds, a gain has no effect, so its colour is faint.
    const faded = Float32Array.from({ length: 256 }, (_, byte) => 0.22 + 0.78 * levelShare(byte, this.top) ** 0.8);
    const image = new ImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const bytes = tile.bytes as Uint8Array;
    for (let row = 0; row < rows; row++) {
      const from = row * columns;
      const to = (rows - 1 - row) * columns;
      for (let column = 0; column < columns; column++) {
        const colour = table[bytes[from + column]];
        const alpha = under ? (colour >>> 24) * faded[under[from + column]] : colour >>> 24;
        pixels[to + column] = ((alpha << 24) | (colour & 0xffffff)) >>> 0;
      }
    }
    tile.canvas.getContext("2d")?.putImageData(image, 0, 0);
    return tile.canvas;
  }

  /** Returns whether an overlay covers the spectrogram. */
  get covered(): boolean {
    if (this.overlay === "saliency") return this.session.saliency !== null;
    const { found, edit } = this.state;
    return this.overlay === "mask" && (found !== null || edit.notes.length > 0);
  }

  private name(kind: Kind, level: number, number: number): string {
    const state = kind === "mask" || kind === "output" ? `?key=${this.state.key}` : "";
    const digest = kind === "saliency" ? `?of=${this.session.saliency?.digest}` : "";
    return `${kind}/${this.scale.axis}/${level}/${number}${state}${digest}`;
  }

  private async fetchTile(name: string, tile: Tile, level: boolean): Promise<void> {
    try {
      const answer = await fetch(`/api/sessions/${this.session.id}/tiles/${name}`);
      if (!answer.ok) throw new Error(String(answer.status));
      tile.bytes = new Uint8Array(await answer.arrayBuffer());
      if (level) this.brighten(tile.bytes);
      if (name.startsWith("input")) performance.mark("spectrogram-visible");
    } catch {
      window.setTimeout(() => {
        this.tiles.delete(name);
      }, 2000);
      return;
    }
    this.draw();
  }

  /** The loudest level so far is the brightest. */
  private brighten(bytes: Uint8Array): void {
    let most = 0;
    for (let n = 0; n < bytes.length; n += 7) if (bytes[n] > most) most = bytes[n];
    const top = Math.max(110, most - 6);
    if (this.tiles.size < 4 || top > this.top) this.top = top;
  }

  private trim(): void {
    if (this.tiles.size <= MOST_TILES) return;
    const old = [...this.tiles].sort((a, b) => a[1].used - b[1].used);
    for (const [name] of old.slice(0, this.tiles.size - MOST_TILES)) this.tiles.delete(name);
  }

  private label(): void {
    const { scale } = this;
    this.rows.replaceChildren(
      ...scale.ticks().map((hz) => {
        const label = h("span", {}, hz >= 1000 ? `${hz / 1000}k` : String(hz));
        label.style.top = `${scale.y(hz)}px`;
        return label;
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
