/** Controls of the picture: tools, zoom, what it shows. */

import type { State } from "./api";
import type { Box, Tool } from "./blocks";
import { button, clock, decibels, h, hertz, icon } from "./dom";
import { follow } from "./drawing";
import { legend } from "./legend";
import { componentTitle } from "./linking";
import { pitch } from "./pitch";
import type { Player } from "./player";
import type { AxisName } from "./scale";
import type { Layer, Scope, View } from "./scope";
import { parsePercent, Slider } from "./slider";
import { Touches } from "./touches";

const TOOLS: [Tool, string, string, string][] = [
  ["move", "Move", "hand", "Drag to scroll, click to go there (V)"],
  ["note", "Note", "note", "Draw your own boost or cut (N)"],
  ["area", "Area", "area", "Scale the automatic EQ in an area (A)"],
  ["loop", "Draw loop", "range", "Draw the range to repeat (L)"],
];
const VIEWS: [View, string, string][] = [
  ["level", "Level", "Levels only"],
  ["gain", "Gain", "Boosts and cuts only; silence is hatched"],
  ["both", "Both", "Boosts and cuts over the levels"],
];
const AXES: Record<string, string> = {
  log: "Log", mel: "Mel", notes: "Notes", cello: "Cello strings", viola: "Viola strings",
  violin: "Violin strings", bass: "Double bass strings", guitar: "Guitar strings",
};

interface Heard {
  stepped(way: "undo" | "redo"): void;
  drawn(tool: Tool, box: Box): void;
  /** A click on an empty position. */
  cleared(): void;
  layered(layer: Layer): void;
  axis(axis: AxisName): void;
  /** Another component is drawn. */
  turned(): void;
}

export class Viewing {
  readonly elements: HTMLElement[];
  private tool: Tool = "move";
  private tools = h("div", { class: "segmented tools", role: "group", "aria-label": "Tool" });
  private views = h("div", { class: "segmented views", role: "group", "aria-label": "View" });
  private undo: HTMLButtonElement;
  private redo: HTMLButtonElement;
  private components = h("div", { class: "segmented components", role: "group", "aria-label": "Mask of", hidden: true });
  readonly readout = h("p", { class: "readout", "aria-hidden": "true" });
  private legendSlot = h("div", { class: "legend-slot" });
  private opacity: Slider;
  private opacityField: HTMLElement;
  private display = "heard"; // original, enhanced, or what is heard
  private touches: Touches;
  private pointer: PointerEvent | null = null;

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
    for (const [view, name, title] of VIEWS) {
      this.views.append(h("button", { type: "button", "aria-pressed": "false", "data-view": view, title, onclick: () => this.look(view) }, name));
    }
    this.undo = button("Undo", "undo", () => heard.stepped("undo"), { bare: true, title: "Undo (Ctrl-Z)" });
    this.redo = button("Redo", "redo", () => heard.stepped("redo"), { bare: true, title: "Redo (Ctrl-Shift-Z)" });
    const zooms = [
      button("Zoom out", "minus", () => this.zoom(1.6), { bare: true, title: "Zoom out in time (−)" }),
      button("Zoom in", "plus", () => this.zoom(1 / 1.6), { bare: true, title: "Zoom in in time (+)" }),
      button("Show everything", "whole", () => this.whole(), { bare: true, title: "Show everything (0)" }),
    ];
    this.opacity = new Slider(
      { min: 0.1, max: 1, step: 0.05, reset: 0.85, label: "Opacity of the gain", text: (it) => `${Math.round(it * 100)} %`, parse: parsePercent },
      { turned: (value) => this.fade(value), kept: (value) => this.fade(value) },
    );
    this.opacityField = h("div", { class: "choice opacity" }, h("span", { "aria-hidden": "true" }, "Opacity"), this.opacity.input);
    this.elements = [
      h("div", { class: "bar under" }, this.tools, this.undo, this.redo, ...zooms, h("span", { class: "gap" }), this.components, this.views),
      h("div", { class: "bar under" }, ...this.choices(), this.opacityField, h("span", { class: "gap" }), this.legendSlot),
    ];
    this.touches = new Touches(scope);
    scope.layer.addEventListener("pointerdown", (event) => this.pressed(event));
    scope.layer.addEventListener("pointermove", (event) => {
      this.pointer = event;
      this.read();
    });
    scope.layer.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.readout.textContent = "";
    });
    scope.onpaint = () => this.read();
    scope.element.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    scope.axis.addEventListener("pointerdown", (event) => this.grabAxis(event));
    scope.axis.addEventListener("dblclick", () => this.whole());
    scope.axis.title = "Drag to scroll, wheel to zoom, double-click for all frequencies";
    player.addEventListener("way", () => this.follow());
    this.choose("move");
    this.look(scope.view);
  }

  show(state: State): void {
    this.undo.disabled = !state.undo;
    this.redo.disabled = !state.redo;
    this.showComponents(state.components);
    this.showLegend();
  }

  showLegend(): void {
    const { scope } = this;
    this.legendSlot.replaceChildren(legend(scope.covered ? scope.shows : "none", scope.reach));
  }

  /** Offers the components that have masks of their own. */
  private showComponents(names: string[]): void {
    this.components.hidden = names.length === 0;
    const shown = [...this.components.children].map((element) => element.getAttribute("data-component"));
    if (shown.join() !== names.join()) {
      const act = (name: string) => {
        this.scope.component = name;
        press(this.components, "data-component", name);
        this.scope.draw();
        this.heard.turned();
      };
      this.components.replaceChildren(
        ...names.map((name) => h("button", { type: "button", "data-component": name, onclick: () => act(name) }, componentTitle(name, names.length))),
      );
    }
    press(this.components, "data-component", this.scope.component);
  }

  choose(tool: Tool): void {
    this.tool = tool;
    this.scope.layer.dataset.tool = tool;
    press(this.tools, "data-tool", tool);
  }

  /** Moves the focus to the tools of the picture. */
  focus(): void {
    this.tools.querySelector("button")?.focus();
  }

  look(view: View): void {
    this.scope.view = view;
    press(this.views, "data-view", view);
    this.opacityField.hidden = view !== "both";
    this.showLegend();
    this.scope.draw();
  }

  zoom(factor: number): void {
    const { scale } = this.scope;
    const at = this.player.position;
    const middle = (scale.start + scale.end) / 2;
    scale.zoom(factor, at > scale.start && at < scale.end ? at : middle);
    this.scope.moved();
  }

  zoomFrequencies(factor: number): void {
    this.scope.scale.zoomFrequencies(factor);
    this.scope.moved();
  }

  /** Shows all times and frequencies. */
  whole(): void {
    const { scale } = this.scope;
    scale.move(0, scale.duration);
    scale.moveFrequencies(0, 1);
    this.scope.moved();
  }

  private fade(value: number): void {
    this.opacity.show(value);
    this.scope.opacity = value;
    this.scope.draw();
  }

  /** Shows the original or the output, whichever is heard or was chosen. */
  private follow(): void {
    const shown = this.display === "heard" ? (this.player.way === "input" ? "input" : "output") : this.display;
    this.scope.shown = shown as "input" | "output";
    this.scope.draw();
  }

  private choices(): HTMLElement[] {
    const { scope, heard } = this;
    return [
      choice("Show", { heard: "What you hear", input: "Original", output: "Enhanced" }, (value) => {
        this.display = value;
        this.follow();
      }),
      choice("Colours", { mask: "Boost and cut", saliency: "What drives the score" }, (value) => {
        scope.shows = value as Layer;
        if (scope.view === "level") this.look("both");
        this.showLegend();
        scope.draw();
        heard.layered(scope.shows);
      }),
      choice("Axis", AXES, (value) => {
        scope.pitches = value !== "log" && value !== "mel";
        scope.instrument = scope.pitches ? value : "";
        heard.axis(value === "mel" ? "mel" : "log");
      }),
    ];
  }

  private pressed(event: PointerEvent): void {
    if (event.button !== 0 || this.touches.down(event)) return;
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
      stopped: () => this.touches.pinching,
    });
  }

  private grabAxis(event: PointerEvent): void {
    const { scale, axis } = this.scope;
    const { bottom, top } = scale;
    axis.setPointerCapture(event.pointerId);
    const move = (now: PointerEvent) => {
      scale.moveFrequencies(bottom + ((now.clientY - event.clientY) / scale.height) * (top - bottom));
      this.scope.moved();
    };
    const end = () => axis.removeEventListener("pointermove", move);
    axis.addEventListener("pointermove", move);
    axis.addEventListener("pointerup", end, { once: true });
    axis.addEventListener("pointercancel", end, { once: true });
  }

  private wheeled(event: WheelEvent): void {
    const { scale, layer, axis } = this.scope;
    const frequencies = event.altKey || axis.contains(event.target as Node);
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    if (!frequencies && !sideways && !event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const box = layer.getBoundingClientRect();
    const by = event.deltaX || event.deltaY;
    if (frequencies) scale.zoomFrequencies(Math.exp(by / 300), event.clientY - box.top);
    else if (sideways) scale.move(scale.start + (by / scale.width) * (scale.end - scale.start));
    else scale.zoom(Math.exp(event.deltaY / 300), scale.seconds(event.clientX - box.left));
    this.scope.moved();
  }

  private read(): void {
    const { pointer: event } = this;
    if (!event) return;
    const box = this.scope.layer.getBoundingClientRect();
    const at = this.scope.read(event.clientX - box.left, event.clientY - box.top);
    const told = [clock(at.seconds, 2), hertz(at.hz), pitch(at.hz)];
    if (at.level !== null) {
      const level = `${decibels(at.level, 0).replace("+", "")}`;
      const change = at.output !== null && at.gain !== null;
      told.push(change ? `${level} → ${decibels(at.output as number, 0).replace("+", "")} (gain ${decibels(at.gain as number)})` : level);
    }
    this.readout.textContent = told.join(" · ");
  }
}

function press(group: HTMLElement, name: string, value: string): void {
  for (const element of group.children) {
    element.setAttribute("aria-pressed", String(element.getAttribute(name) === value));
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
