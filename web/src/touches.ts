/** Two fingers on the picture: they zoom and scroll time and frequency. */

import type { Scope } from "./scope";

export class Touches {
  pinching = false;
  private fingers = new Map<number, { x: number; y: number }>();

  constructor(private scope: Scope) {
    // Captured first: a finger on a note may be one of two.
    scope.layer.addEventListener("pointerdown", (event) => this.down(event), { capture: true });
    scope.layer.addEventListener("pointermove", (event) => this.move(event), { capture: true });
    for (const kind of ["pointerup", "pointercancel"]) {
      scope.layer.addEventListener(kind, (event) => this.up(event as PointerEvent), { capture: true });
    }
  }

  /** Notes a finger; returns whether two fingers are down. */
  down(event: PointerEvent): boolean {
    if (event.pointerType !== "touch") return false;
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.fingers.size > 1) {
      this.pinching = true;
      event.stopPropagation();
    }
    return this.pinching;
  }

  private move(event: PointerEvent): void {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (!this.pinching) return;
    event.stopPropagation();
    if (other) this.pinch(finger, now, other);
  }

  private pinch(before: { x: number; y: number }, now: { x: number; y: number }, other: { x: number; y: number }): void {
    const { scale, layer } = this.scope;
    const box = layer.getBoundingClientRect();
    const ratio = (a: number, b: number, c: number) => Math.max(24, Math.abs(a - c)) / Math.max(24, Math.abs(b - c));
    scale.zoom(ratio(before.x, now.x, other.x), scale.seconds((now.x + other.x) / 2 - box.left));
    scale.zoomFrequencies(ratio(before.y, now.y, other.y), (now.y + other.y) / 2 - box.top);
    // The middle of the fingers keeps its place.
    scale.move(scale.start - ((now.x - before.x) / 2 / scale.width) * (scale.end - scale.start));
    this.scope.moved();
  }

  private up(event: PointerEvent): void {
    this.fingers.delete(event.pointerId);
    // Whoever follows the pointer sees the pinch until this event is over.
    if (this.fingers.size === 0) window.setTimeout(() => (this.pinching = false));
  }
}
