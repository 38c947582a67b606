/** The average EQ, drawn upright beside the picture because both share the frequency axis. */

import { get, type Edit, type Session } from "./api";
import { decibels, h, hertz, s } from "./dom";
import type { Scale } from "./scale";

interface Curve {
  hz: number[];
  mean: number[];
  low: number[];
  high: number[];
}

export class AverageEq {
  readonly element: HTMLElement;
  private plot = s("svg", { preserveAspectRatio: "none", role: "img" });
  private curve: Curve | null = null;
  private whole: Curve | null = null; // of the whole recording, to compare with that in view
  reach = 18; // gain at the edge, dB: the scale of the picture's colours, too

  private name: HTMLButtonElement;
  private visible = false; // of the visible range, not of the whole recording

  constructor(
    private scale: Scale,
    private changed: () => void,
  ) {
    this.name = h("button", { type: "button", onclick: () => this.toggle() });
    this.element = h("figure", { class: "average" }, h("figcaption", {}, this.name), this.plot as unknown as HTMLElement);
    this.label();
  }

  /** Reads the average of the visible range, if that is chosen. */
  get follows(): boolean {
    return this.visible;
  }

  private toggle(): void {
    this.visible = !this.visible;
    this.label();
    this.changed();
  }

  private label(): void {
    this.name.replaceChildren(h("span", { class: "long" }, this.visible ? "In view: " : "Average "), "EQ");
    this.name.title = this.visible ? "EQ of the visible range, and of the whole recording (dotted); click for the whole alone" : "EQ of the whole recording; click for the visible range";
  }

  /** The largest boost and the largest cut of the average. */
  get summary(): { boost: { hz: number; db: number }; cut: { hz: number; db: number } } | null {
    if (!this.curve) return null;
    const { hz, mean } = this.curve;
    const at = (db: number) => ({ hz: hz[mean.indexOf(db)], db });
    return { boost: at(Math.max(...mean)), cut: at(Math.min(...mean)) };
  }

  async load(session: Session, component: string): Promise<void> {
    const { start, end, axis } = this.scale;
    const path = `/sessions/${session.id}/curve?axis=${axis}&component=${component}`;
    const range = `&start_s=${start.toFixed(3)}&end_s=${end.toFixed(3)}`;
    const [whole, curve] = await Promise.all([get<Curve>(path), this.visible ? get<Curve>(path + range) : null]);
    [this.whole, this.curve] = [whole, curve ?? whole];
    if (curve) return; // the scale stays
    const most = Math.max(6, ...whole.low.map(Math.abs), ...whole.high.map(Math.abs));
    this.reach = Math.min(30, Math.ceil(most / 6) * 6);
  }

  draw({ amount, curve: own }: Edit): void {
    const { scale, curve } = this;
    const height = scale.height;
    const width = this.plot.clientWidth || 110;
    this.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!curve) return;
    const { reach } = this;
    const x = (db: number) => width / 2 + (Math.max(-reach, Math.min(reach, db)) / reach) * (width / 2 - 6);
    const shown = curve.hz.map((hz) => scale.shows(hz));
    const at = (values: number[]) => values.map((db, n) => shown[n] && `${x(db * amount).toFixed(1)},${scale.y(curve.hz[n]).toFixed(1)}`).filter(Boolean);
    const extreme = curve.mean.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0) * amount;
    const where = curve.hz[curve.mean.findIndex((db) => db * amount === extreme)] ?? 0;
    this.plot.setAttribute(
      "aria-label",
      `Average gain by frequency; the largest is ${decibels(extreme)} at ${hertz(where)}${own ? "; dashed: the curve from a file" : ""}`,
    );
    this.plot.replaceChildren(
      ...scale.ticks().map((hz) => s("line", { class: "grid", x1: 0, x2: width, y1: scale.y(hz), y2: scale.y(hz) })),
      s("line", { class: "zero", x1: width / 2, x2: width / 2, y1: 0, y2: height }),
      s("polygon", { class: "band", points: [...at(curve.low), ...at(curve.high).reverse()].join(" ") }),
      ...(this.visible && this.whole ? [s("polyline", { class: "whole", points: at(this.whole.mean).join(" ") })] : []),
      s("polyline", { class: "mean", points: at(curve.mean).join(" ") }),
      ...(own ? [s("polyline", { class: "file", points: held(own.points).map(([hz, db]) => `${x(db * amount).toFixed(1)},${scale.y(hz).toFixed(1)}`).join(" ") })] : []),
      ...(width < 90
        ? [s("text", { x: width / 2, y: height - 6, "text-anchor": "middle" }, `±${reach} dB`)]
        : [
            s("text", { x: 4, y: height - 6 }, `−${reach}`),
            s("text", { x: width - 4, y: height - 6, "text-anchor": "end" }, `+${reach} dB`),
          ]),
    );
  }
}

/** Returns the points of a curve, whose ends hold beyond them. */
function held(points: [number, number][]): [number, number][] {
  return [[10, points[0][1]], ...points, [40_000, points[points.length - 1][1]]];
}
