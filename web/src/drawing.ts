/** Dragging on the picture: scrolls, or draws a box. */

import { h } from "./dom";
import type { Box, Tool } from "./blocks";
import type { Scale } from "./scale";

interface Heard {
  moved(): void;
  clicked(seconds: number): void;
  drawn(box: Box): void;
  /** Whether something else took the pointer. */
  stopped(): boolean;
}

/** Follows the pointer from press to release. */
export function follow(event: PointerEvent, layer: HTMLElement, scale: Scale, tool: Tool, heard: Heard): void {
  const box = layer.getBoundingClientRect();
  const at = (it: PointerEvent) => ({
    x: Math.max(0, Math.min(scale.width, it.clientX - box.left)),
    y: Math.max(0, Math.min(scale.height, it.clientY - box.top)),
  });
  const from = at(event);
  const { start } = scale;
  const rubber = h("div", { class: `rubber ${tool}` });
  let moved = false;
  layer.setPointerCapture(event.pointerId);
  const move = (now: PointerEvent) => {
    if (heard.stopped()) return;
    const to = at(now);
    if (!moved && Math.hypot(to.x - from.x, to.y - from.y) < 4) return;
    moved = true;
    if (tool === "move") {
      scale.move(start - ((now.clientX - event.clientX) / scale.width) * (scale.end - scale.start));
      heard.moved();
      return;
    }
    if (!rubber.parentElement) layer.append(rubber);
    rubber.style.left = `${Math.min(from.x, to.x)}px`;
    rubber.style.width = `${Math.abs(to.x - from.x)}px`;
    rubber.style.top = tool === "loop" ? "0" : `${Math.min(from.y, to.y)}px`;
    rubber.style.height = tool === "loop" ? "100%" : `${Math.abs(to.y - from.y)}px`;
  };
  const end = (now: PointerEvent) => {
    layer.removeEventListener("pointermove", move);
    layer.removeEventListener("pointerup", end);
    layer.removeEventListener("pointercancel", end);
    rubber.remove();
    if (heard.stopped()) return;
    const to = at(now);
    if (!moved) heard.clicked(scale.seconds(from.x));
    else if (tool !== "move") {
      heard.drawn({
        start: scale.seconds(Math.min(from.x, to.x)),
        end: Math.min(scale.duration, scale.seconds(Math.max(from.x, to.x))),
        low: scale.hz(Math.max(from.y, to.y)),
        high: scale.hz(Math.min(from.y, to.y)),
      });
    }
  };
  layer.addEventListener("pointermove", move);
  layer.addEventListener("pointerup", end);
  layer.addEventListener("pointercancel", end);
}
