/** The colour scale of the overlay in dB. */

import { gainColour } from "./colours";
import { h } from "./dom";
import { REACH_DB, type Overlay } from "./scope";

export function legend(overlay: Overlay): HTMLElement {
  const bar = h("canvas", { width: 121, height: 1, class: "bar", "aria-hidden": "true" });
  const context = bar.getContext("2d");
  const image = new ImageData(121, 1);
  for (let n = 0; n <= 120; n++) image.data.set(gainColour(((n - 60) / 60) * REACH_DB, REACH_DB), n * 4);
  context?.putImageData(image, 0, 0);
  const ends = overlay === "saliency" ? ["source", "reference"] : [`−${REACH_DB} dB`, `+${REACH_DB} dB`];
  const text =
    overlay === "saliency"
      ? "Colours: blue is evidence for the source, orange for the reference"
      : `Colours: blue is cut, orange is boosted, full at ${REACH_DB} decibels`;
  return h(
    "div",
    { class: "legend", role: "img", "aria-label": text, hidden: overlay === "none" },
    h("span", {}, ends[0]),
    bar,
    h("span", {}, ends[1]),
  );
}
