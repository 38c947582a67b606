/** Playback controls: play, position, input or output, amount. */

import type { State } from "./api";
import { button, clock, decibels, h, icon, say } from "./dom";
import { percent } from "./notes";
import type { Player, Way } from "./player";
import type { Scope } from "./scope";

const WAYS: [Way, string, string][] = [
  ["input", "Original", "1"],
  ["output", "Enhanced", "2"],
  ["difference", "What changed", "3"],
];

export interface Region {
  start: number;
  end: number;
}

interface Heard {
  /** The amount changes; the page shows it at once. */
  turned(amount: number): void;
  kept(): void;
  looped(region: Region | null): void;
}

export class Transport {
  readonly element: HTMLElement;
  readonly levels = h("p", { class: "level-note quiet" });
  private playButton = button("Play", "play", () => this.player.toggle(), { class: "play", bare: true });
  private at = h("b");
  private time: HTMLElement;
  private ways = h("div", { class: "segmented", role: "group", "aria-label": "Playback" });
  private loopButton = button("Loop", "loop", () => this.toggleLoop(), { bare: true, "aria-pressed": "false" });
  private amount = h("input", { type: "range", id: "amount", min: "0", max: "1", step: "0.01" });
  private figure = h("output", { for: "amount" });
  private frame = 0;
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
    this.amount.addEventListener("input", () => this.turn(Number(this.amount.value)));
    this.amount.addEventListener("change", () => heard.kept());
    player.addEventListener("play", () => this.playing());
    player.addEventListener("pause", () => this.playing());
    player.addEventListener("timeupdate", () => this.tick());
    player.addEventListener("lost", () => say("The studio did not send the sound: check that it is still running.", "error"));
    this.element = h(
      "div",
      { class: "bar transport" },
      this.playButton,
      this.time,
      this.ways,
      this.loopButton,
      h("div", { class: "amount" }, h("label", { for: "amount" }, "Amount"), this.amount, this.figure),
    );
  }

  destroy(): void {
    this.gone = true;
    cancelAnimationFrame(this.frame);
  }

  show(amount: number): void {
    const text = percent(amount);
    this.amount.value = String(amount);
    this.figure.textContent = text;
    this.amount.setAttribute("aria-valuetext", text);
    this.amount.style.setProperty("--share", `${amount * 100}%`);
    this.tick();
  }

  listenTo(way: Way): void {
    this.player.listen(way);
    for (const element of this.ways.children) {
      element.setAttribute("aria-pressed", String(element.getAttribute("data-way") === way));
    }
  }

  /** Describes the playback levels. */
  tell(state: State, clipped: boolean): void {
    const { levels, way } = this.player;
    const told: string[] = [];
    if (state.found !== null || state.edit.notes.length) {
      if (way === "difference") told.push(`The difference is played ${decibels(levels.difference_db)} louder.`);
      else if (levels.held) {
        told.push(`The true-peak limit keeps the output ${decibels(-levels.input_db)} below the original; here both are played at equal loudness.`);
      } else told.push("Original and enhanced are played at equal loudness.");
      if (!levels.exact) told.push("The level is an estimate within half a decibel until the full rendering is complete.");
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

  private turn(amount: number): void {
    this.heard.turned(amount);
    this.player.amount = amount;
    this.show(amount);
    void this.player.refresh();
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
    say("The loop is on: drag its edges above the picture, or draw it with the Loop tool.");
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
