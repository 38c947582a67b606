/** Tiles of levels and gains: fetched, coloured, and read under the pointer. */

import type { Session, State } from "./api";
import { gainColours, levelColours, levelShare, neutral } from "./colours";
import { h } from "./dom";
import type { AxisName } from "./scale";

export type Kind = "input" | "output" | "mask" | "saliency";

/** What the colours of a tile depend on. */
export interface Paint {
  dark: boolean;
  grey: boolean; // levels under an overlay
  flat: boolean; // gains alone, without levels
  amount: number;
  reach: number; // gain of the full colour, dB
  lift: number; // gain of the whole output, dB
}

export interface Tile {
  name: string;
  bytes: Uint8Array | null;
  canvas: HTMLCanvasElement | null;
  colours: string; // what its colours were made of
  used: number;
}

const MOST_TILES = 200;
const SALIENCY_REACH = 31;
const QUIET = 0.03; // share of the level scale below which nothing sounds

export class Tiles {
  component = ""; // whose levels and gains are drawn, if masks are separate
  private tiles = new Map<string, Tile>();
  private turn = 0;
  private top = 110; // byte of the brightest level

  constructor(
    private session: Session,
    private arrived: () => void,
  ) {}

  /** A new picture begins. */
  begin(): void {
    this.turn += 1;
  }

  /** Whether the picture has all of its tiles. */
  get complete(): boolean {
    for (const { used, bytes } of this.tiles.values()) if (used === this.turn && !bytes) return false;
    return true;
  }

  /** Forgets the tiles that were used longest ago. */
  trim(): void {
    if (this.tiles.size <= MOST_TILES) return;
    const old = [...this.tiles].sort((a, b) => a[1].used - b[1].used);
    for (const [name] of old.slice(0, this.tiles.size - MOST_TILES)) this.tiles.delete(name);
  }

  forgetColours(): void {
    for (const tile of this.tiles.values()) tile.colours = "";
  }

  /** Returns a tile that is here, or null. */
  here(kind: Kind, axis: AxisName, level: number, number: number, state: State): Tile | null {
    const tile = this.tiles.get(this.name(kind, axis, level, number, state));
    return tile?.bytes ? tile : null;
  }

  /** Returns a tile that is here, or requests it. */
  get(kind: Kind, axis: AxisName, level: number, number: number, state: State): Tile | null {
    const name = this.name(kind, axis, level, number, state);
    let tile = this.tiles.get(name);
    if (!tile) {
      this.tiles.set(name, (tile = { name, bytes: null, canvas: null, colours: "", used: this.turn }));
      void this.fetch(tile, kind === "input" || kind === "output");
    }
    tile.used = this.turn;
    return tile.bytes ? tile : null;
  }

  /** Returns the picture of levels; with a mask, of the levels that its gains lead to. */
  levels(tile: Tile, paint: Paint, mask: Tile | null): HTMLCanvasElement {
    const key = `${paint.dark}${this.top}${paint.grey}${mask ? `${mask.name}${paint.amount}${paint.lift}` : ""}`;
    const table = levelColours(this.top, paint.grey);
    // Half-decibels for each quarter-decibel of the mask.
    const change = Float32Array.from({ length: 256 }, (_, byte) => ((byte - 128) / 2) * paint.amount + 2 * paint.lift);
    const levels = tile.bytes as Uint8Array;
    const gains = mask?.bytes;
    return this.drawn(tile, key, (at) => {
      const level = levels[at];
      return table[gains && level > 0 ? Math.max(0, Math.min(255, Math.round(level + change[gains[at]]))) : level];
    });
  }

  /** Returns the picture of gains, or of saliency; where nothing sounds, it is faint or hatched. */
  gains(tile: Tile, kind: Kind, paint: Paint, under: Tile | null): HTMLCanvasElement {
    const { columns } = this.session.axes;
    const levels = under?.bytes ?? null;
    const amount = kind === "mask" ? paint.amount : 1;
    const key = `${paint.dark}${amount.toFixed(3)}${paint.reach}${paint.flat}${levels ? `${this.top}${under?.name}` : ""}`;
    const table = gainColours(amount, kind === "mask" ? paint.reach : SALIENCY_REACH, paint.flat);
    const shares = Float32Array.from({ length: 256 }, (_, byte) => levelShare(byte, this.top));
    const { ground, line } = neutral();
    const bytes = tile.bytes as Uint8Array;
    return this.drawn(tile, key, (at) => {
      const colour = table[bytes[at]];
      if (!levels) return colour;
      const share = shares[levels[at]];
      if (!paint.flat) return (((((colour >>> 24) * (0.22 + 0.78 * share ** 0.8)) << 24) | (colour & 0xffffff)) >>> 0);
      if (share > QUIET) return colour;
      const row = Math.floor(at / columns);
      return (row + (at % columns)) % 10 < 2 ? line : ground;
    });
  }

  private drawn(tile: Tile, key: string, colour: (at: number) => number): HTMLCanvasElement {
    const { rows, columns } = this.session.axes;
    if (tile.canvas && tile.colours === key) return tile.canvas;
    tile.canvas ??= h("canvas", { width: columns, height: rows });
    tile.colours = key;
    const image = new ImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < rows; row++) {
      const from = row * columns;
      const to = (rows - 1 - row) * columns;
      for (let column = 0; column < columns; column++) pixels[to + column] = colour(from + column);
    }
    tile.canvas.getContext("2d")?.putImageData(image, 0, 0);
    return tile.canvas;
  }

  private name(kind: Kind, axis: AxisName, level: number, number: number, state: State): string {
    const { part } = state;
    const grown = kind === "mask" && part ? `&found=${part.found}&of=${part.job}-${part.seconds}` : "";
    const key = kind === "mask" || kind === "output" ? `&key=${state.key}${grown}` : "";
    const digest = kind === "saliency" ? `&of=${this.session.saliency?.digest}` : "";
    const component = kind !== "saliency" && this.component ? `&component=${this.component}` : "";
    return `${kind}/${axis}/${level}/${number}?${key}${digest}${component}`.replace("?&", "?").replace(/\?$/, "");
  }

  private async fetch(tile: Tile, level: boolean): Promise<void> {
    const { name } = tile;
    try {
      const answer = await fetch(`/api/sessions/${this.session.id}/tiles/${name}`);
      if (answer.status !== 200) throw new Error(String(answer.status)); // 204: of an edit that was replaced
      tile.bytes = new Uint8Array(await answer.arrayBuffer());
      if (level) this.brighten(tile.bytes);
      if (name.startsWith("input")) performance.mark("spectrogram-visible");
    } catch {
      window.setTimeout(() => this.tiles.delete(name), 2000);
      return;
    }
    this.arrived();
  }

  /** The loudest level so far is the brightest. */
  private brighten(bytes: Uint8Array): void {
    let most = 0;
    for (let n = 0; n < bytes.length; n += 7) if (bytes[n] > most) most = bytes[n];
    this.top = Math.max(this.top, most - 6);
  }
}
