/** The colour scale of gains in dB, or of saliency. */

import { gainColour } from "./colours";
import { h } from "./dom";
import type { Layer } from "./scope";

export function legend(layer: Layer | "none", reach: number): HTMLElement {
  const bar = h("canvas", { width: 121, height: 1, class: "bar", "aria-hidden": "true" });
  const context = bar.getContext("2d");
  const image = new ImageData(121, 1);
  for (let n = 0; n <= 120; n++) image.data.set(gainColour(((n - 60) / 60) * reach, reach), n * 4);
  context?.putImageData(image, 0, 0);
  const ends = layer === "saliency" ? ["source", "reference"] : [`−${reach} dB`, `+${reach} dB`];
  const text =
    layer === "saliency"
      ? "Colours: blue is evidence for the source, red for the reference"
      : `Colours: blue is cut, red is boosted, full at ${reach} decibels`;
  return h(
    "div",
    { class: "legend", role: "img", "aria-label": text, hidden: layer === "none" },
    h("span", {}, ends[0]),
    bar,
    h("span", {}, ends[1]),
  );
}
