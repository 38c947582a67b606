/** Playback controls: play, position, input or output, amount. */

import { isMasked, type State } from "./api";
import { button, clock, decibels, h, icon, say } from "./dom";
import { parsePercent, Slider } from "./slider";
import { percent } from "./notes";
import type { Player, Way } from "./player";
import type { Scope } from "./scope";

const WAYS: [Way, string, string][] = [
  ["input", "Original", "1"],
  ["output", "Enhanced", "2"],
  ["difference", "Difference", "3"],
];

export interface Region {
  start: number;
  end: number;
}

interface Heard {
  /** The amount changes; the page shows and plays it at once. */
  turned(amount: number): void;
  kept(): void;
  looped(region: Region | null): void;
}

const VOLUME = "volume"; // in the browser's storage
const SOFTEST_DB = -40; // at the left end, before silence

/** Returns the gain of a share of the volume slider: equal steps in dB, and silence at its end. */
const volumeGain = (share: number): number => (share <= 0 ? 0 : 10 ** ((SOFTEST_DB * (1 - share)) / 20));

export class Transport {
  readonly element: HTMLElement;
  readonly levels = h("p", { class: "level-note quiet" });
  private playButton = button("Play", "play", () => this.player.toggle(), { class: "play", bare: true });
  private at = h("b");
  private time: HTMLElement;
  private ways = h("div", { class: "segmented", role: "group", "aria-label": "Playback" });
  private loopButton = button("Loop", "loop", () => this.toggleLoop(), { bare: true, "aria-pressed": "false" });
  private amount: Slider;
  private volume: Slider;
  private frame = 0;
  private masked = false;
  private gone = false;

  constructor(
    private player: Player,
    private scope: Scope,
    private heard: Heard,
  ) {
    this.time = h("span", { class: "time" }, this.at, h("span", {}, ` / ${clock(player.duration)}`));
    for (const [way, name, key] of WAYS) {
      this.ways.append(
        h(
          "button",
          { type: "button", "aria-pressed": "false", "data-way": way, title: `${name} (${key})`, onclick: () => this.listenTo(way) },
          h("span", {}, name),
          h("kbd", { "aria-hidden": "true" }, key),
        ),
      );
    }
    this.amount = new Slider(
      { min: -1, max: 2, step: 0.01, reset: 1, label: "Amount", text: percent, parse: parsePercent },
      { turned: (amount) => heard.turned(amount), kept: () => heard.kept() },
      { id: "amount" },
    );
    this.volume = new Slider(
      { min: 0, max: 1, step: 0.02, reset: 1, label: "Volume", text: percent },
      { turned: (share) => (player.volume = volumeGain(share)), kept: (share) => this.storeVolume(share) },
    );
    this.volume.show(storedVolume());
    player.volume = volumeGain(storedVolume());
    player.addEventListener("play", () => this.playing());
    player.addEventListener("pause", () => this.playing());
    player.addEventListener("timeupdate", () => this.tick());
    player.addEventListener("lost", () => say("The studio did not send the sound: check that it is still running.", "error"));
    this.element = h(
      "div",
      { class: "bar transport" },
      this.playButton,
      h("div", { class: "clock" }, this.time, h("div", { class: "volume" }, icon("volume"), this.volume.input)),
      this.ways,
      this.loopButton,
      player.meter.element,
      h("div", { class: "amount" }, h("span", { "aria-hidden": "true" }, "Amount"), this.amount.input, this.amount.figure),
    );
  }

  destroy(): void {
    this.gone = true;
    cancelAnimationFrame(this.frame);
  }

  /** Shows the amount; without a mask there is nothing to compare or to scale. */
  show(amount: number, masked: boolean): void {
    this.amount.show(amount);
    this.amount.input.disabled = this.amount.figure.disabled = !masked;
    for (const element of this.ways.children) {
      (element as HTMLButtonElement).disabled = !masked && element.getAttribute("data-way") !== "input";
    }
    this.masked = masked;
    if (!masked && this.player.way !== "input") this.listenTo("input");
    this.tick();
  }

  listenTo(way: Way): void {
    if (!this.masked && way !== "input") {
      say("There is nothing to compare yet: press Enhance, or draw a note.");
      return;
    }
    this.player.listen(way);
    for (const element of this.ways.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-way") === way));
    }
  }

  /** Describes the playback levels. */
  tell(state: State, clipped: boolean): void {
    const { levels, way } = this.player;
    const told: string[] = [];
    if (isMasked(state)) {
      if (way === "difference") told.push(`Difference is played ${decibels(Math.abs(levels.difference_db)).replace("+", "")} ${levels.difference_db < 0 ? "quieter" : "louder"}.`);
      else if (levels.held) {
        told.push(`Output is ${decibels(-levels.input_db).replace("+", "")} quieter to avoid clipping (matched here).`);
      } else told.push("Original and enhanced are played at equal loudness.");
      if (!levels.exact) told.push("Playback level is approximate until rendering finishes.");
    }
    if (clipped) told.push("The recording is clipped; the missing peaks cannot be restored.");
    this.levels.textContent = told.join(" ");
  }

  loop(region: Region | null): void {
    const { player } = this;
    player.loop = region;
    this.loopButton.setAttribute("aria-pressed", String(region !== null));
    this.scope.loop(region);
    if (region && player.playing) player.seek(region.start);
    else if (player.playing) void player.refresh();
  }

  go(seconds: number): void {
    const { scale } = this.scope;
    this.player.seek(seconds);
    const at = this.player.position;
    if (at < scale.start || at > scale.end) {
      scale.move(at - (scale.end - scale.start) / 3);
      this.scope.moved();
    }
  }

  private storeVolume(share: number): void {
    try {
      localStorage.setItem(VOLUME, String(share));
    } catch {
      // a browser may forbid storage
    }
  }

  private toggleLoop(): void {
    if (this.player.loop) {
      this.heard.looped(null);
      return;
    }
    const { start, end } = this.scope.scale;
    const at = this.player.position;
    const from = at >= start && at < end ? at : start;
    this.heard.looped({ start: from, end: Math.min(end, from + Math.max(2, (end - start) / 4)) });
    say("The loop is on: drag its edges above the picture, or draw it with Draw loop.");
  }

  private tick(): void {
    const at = this.player.position;
    this.at.textContent = clock(at);
    this.scope.playhead(at, this.player.playing);
    if (this.player.playing && !this.gone) {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.tick());
    }
  }

  private playing(): void {
    const { playing } = this.player;
    this.playButton.firstElementChild?.replaceWith(icon(playing ? "pause" : "play"));
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.playButton.title = playing ? "Pause (space)" : "Play (space)";
    this.tick();
  }
}

function storedVolume(): number {
  try {
    return Number(localStorage.getItem(VOLUME) ?? 1);
  } catch {
    return 1; // a browser may forbid storage
  }
}
