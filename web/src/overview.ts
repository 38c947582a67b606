/** The strip above the picture: the whole recording, the visible part, and the loop. */

import WaveSurfer from "wavesurfer.js";
import RegionsPlugin from "wavesurfer.js/plugins/regions";

import { h, inked } from "./dom";
import { Media } from "./media";
import type { Player } from "./player";
import type { Scale } from "./scale";

interface Heard {
  looped(region: { start: number; end: number }): void;
  moved(start: number): void;
}

const colours = () => ({
  waveColor: inked("--wave"),
  progressColor: inked("--accent"),
  cursorColor: inked("--ink"),
});

export class Overview {
  readonly element = h("div", { class: "overview" });
  private wave: WaveSurfer | null = null;
  private regions = RegionsPlugin.create();

  constructor(
    private player: Player,
    private heard: Heard,
  ) {}

  draw(peaks: number[]): void {
    this.wave = WaveSurfer.create({
      container: this.element,
      height: 52,
      peaks: [peaks],
      duration: this.player.duration,
      media: new Media(this.player) as unknown as HTMLMediaElement,
      cspNonce: document.querySelector<HTMLMetaElement>("meta[name=csp-nonce]")?.content,
      cursorWidth: 1,
      normalize: true,
      dragToSeek: true,
      hideScrollbar: true,
      plugins: [this.regions],
      ...colours(),
    });
    this.regions.on("region-updated", (region) => {
      if (region.id === "loop") this.heard.looped({ start: region.start, end: region.end });
      if (region.id === "window") this.heard.moved(region.start);
    });
  }

  /** Applies the present colours of the page. */
  ink(): void {
    this.wave?.setOptions(colours());
    if (!this.wave) return;
    for (const region of this.regions.getRegions()) {
      region.setOptions({ color: inked(region.id === "loop" ? "--loop" : "--window") });
    }
  }

  /** Marks the visible part of the recording. */
  window({ start, end, duration }: Scale): void {
    if (!this.wave) return;
    const found = this.regions.getRegions().find((region) => region.id === "window");
    if (end - start > duration * 0.999) found?.remove();
    else if (found) found.setOptions({ start, end });
    else this.regions.addRegion({ id: "window", start, end, resize: false, color: inked("--window") });
  }

  loop(region: { start: number; end: number } | null): void {
    if (!this.wave) return;
    this.regions.getRegions().find((it) => it.id === "loop")?.remove();
    if (region) this.regions.addRegion({ id: "loop", ...region, color: inked("--loop") });
  }

  destroy(): void {
    this.wave?.destroy();
  }
}
