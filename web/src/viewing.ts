/** Controls of the picture: tools, zoom, what it shows. */

import type { Box, Tool } from "./blocks";
import { button, clock, h, hertz, icon } from "./dom";
import { follow } from "./drawing";
import { legend } from "./legend";
import type { Player } from "./player";
import type { AxisName } from "./scale";
import type { Overlay, Scope } from "./scope";

const TOOLS: [Tool, string, string, string][] = [
  ["move", "Move", "hand", "Drag to scroll, click to go there (V)"],
  ["note", "Note", "note", "Draw a block of gain (N)"],
  ["area", "Area", "area", "Scale the mask in an area (A)"],
  ["loop", "Loop", "loop", "Repeat a range (L)"],
];

interface Heard {
  stepped(way: "undo" | "redo"): void;
  drawn(tool: Tool, box: Box): void;
  /** A click on an empty position. */
  cleared(): void;
  overlaid(overlay: Overlay): void;
  axis(axis: AxisName): void;
}

export class Viewing {
  readonly elements: HTMLElement[];
  private tool: Tool = "move";
  private tools = h("div", { class: "segmented tools", role: "group", "aria-label": "Tool" });
  private undo: HTMLButtonElement;
  private redo: HTMLButtonElement;
  private readout = h("span", { class: "readout", "aria-hidden": "true" });
  private legendSlot = h("div", { class: "legend-slot" });

  constructor(
    private scope: Scope,
    private player: Player,
    private heard: Heard,
  ) {
    for (const [tool, name, glyph, title] of TOOLS) {
      this.tools.append(
        h(
          "button",
          { type: "button", "aria-pressed": "false", "data-tool": tool, title, onclick: () => this.choose(tool) },
          icon(glyph),
          h("span", {}, name),
        ),
      );
    }
    this.undo = button("Undo", "undo", () => heard.stepped("undo"), { bare: true, title: "Undo (Ctrl-Z)" });
    this.redo = button("Redo", "redo", () => heard.stepped("redo"), { bare: true, title: "Redo (Ctrl-Shift-Z)" });
    const zooms = [
      button("Zoom out", "minus", () => this.zoom(1.6), { bare: true, title: "Zoom out (−)" }),
      button("Zoom in", "plus", () => this.zoom(1 / 1.6), { bare: true, title: "Zoom in (+)" }),
    ];
    const gap = h("span", { class: "gap" });
    this.elements = [
      h("div", { class: "bar under" }, this.tools, this.undo, this.redo, ...zooms, gap, this.readout, this.legendSlot),
      h("div", { class: "bar under" }, ...this.choices()),
    ];
    scope.layer.addEventListener("pointerdown", (event) => this.pressed(event));
    scope.layer.addEventListener("pointermove", (event) => this.read(event));
    scope.layer.addEventListener("pointerleave", () => (this.readout.textContent = ""));
    scope.element.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    this.choose("move");
  }

  show(state: { undo: boolean; redo: boolean }): void {
    this.undo.disabled = !state.undo;
    this.redo.disabled = !state.redo;
    this.showLegend();
  }

  showLegend(): void {
    this.legendSlot.replaceChildren(legend(this.scope.covered ? this.scope.overlay : "none"));
  }

  choose(tool: Tool): void {
    this.tool = tool;
    this.scope.layer.dataset.tool = tool;
    for (const element of this.tools.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-tool") === tool));
    }
  }

  zoom(factor: number): void {
    const { scale } = this.scope;
    const at = this.player.position;
    const middle = (scale.start + scale.end) / 2;
    scale.zoom(factor, at > scale.start && at < scale.end ? at : middle);
    this.scope.moved();
  }

  private choices(): HTMLElement[] {
    const { scope, heard } = this;
    return [
      choice("Picture of", { input: "the original", output: "the output" }, (value) => {
        scope.shown = value as "input" | "output";
        scope.draw();
      }),
      choice("Overlay", { mask: "the mask", saliency: "what the scorer responds to", none: "nothing" }, (value) => {
        scope.overlay = value as Overlay;
        this.showLegend();
        scope.draw();
        heard.overlaid(scope.overlay);
      }),
      choice("Frequencies", { log: "in octaves", mel: "in mel" }, (value) => heard.axis(value as AxisName)),
    ];
  }

  private pressed(event: PointerEvent): void {
    if (event.button !== 0) return;
    const tool = event.shiftKey ? "loop" : this.tool;
    if (tool === "move" && (event.target as HTMLElement).closest(".block")) return;
    follow(event, this.scope.layer, this.scope.scale, tool, {
      moved: () => this.scope.moved(),
      clicked: (seconds) => {
        this.heard.cleared();
        this.player.seek(seconds);
      },
      drawn: (box) => {
        this.heard.drawn(tool, box);
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

  private read(event: PointerEvent): void {
    const box = this.scope.layer.getBoundingClientRect();
    const { scale } = this.scope;
    const hz = scale.hz(event.clientY - box.top);
    this.readout.textContent = `${clock(scale.seconds(event.clientX - box.left), 2)}  ${hertz(hz)}`;
  }
}

function choice(label: string, names: Record<string, string>, act: (value: string) => void): HTMLElement {
  const select = h(
    "select",
    { "aria-label": label, "data-select": label.toLowerCase() },
    ...Object.entries(names).map(([value, name]) => h("option", { value }, name)),
  );
  select.addEventListener("change", () => act(select.value));
  return h("label", { class: "choice" }, h("span", { "aria-hidden": "true" }, label), select);
}
