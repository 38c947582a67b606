/** A small waveform of a recording, for lists. */

import { get, type Listed } from "./api";
import { s } from "./dom";

const BARS = 48;
const HEIGHT = 24;

/** Returns a drawing that is filled once it is visible. */
export function thumbnail({ id }: Listed): SVGElement {
  const path = s("path", {});
  const drawing = s("svg", { class: "thumbnail", viewBox: `0 0 ${2 * BARS} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, path);
  const observer = new IntersectionObserver(([{ isIntersecting }]) => {
    if (!isIntersecting) return;
    observer.disconnect();
    get<{ peaks: number[] }>(`/sessions/${id}/waveform`).then(({ peaks }) => path.setAttribute("d", bars(peaks))).catch(() => {}); // a list works without
  });
  observer.observe(drawing);
  return drawing;
}

/** Returns a bar for the largest peak of each stretch; the loudest is as high as the drawing. */
function bars(peaks: number[]): string {
  const count = Math.min(BARS, peaks.length);
  const edge = (n: number) => Math.floor((n * peaks.length) / count);
  const largest = Array.from({ length: count }, (_, n) => Math.max(...peaks.slice(edge(n), edge(n + 1))));
  const most = Math.max(...largest, 1e-4);
  return largest
    .map((peak, n) => {
      const height = Math.max(1, (peak / most) * HEIGHT);
      return `M${((2 * BARS) / count) * n} ${((HEIGHT - height) / 2).toFixed(1)}h1v${height.toFixed(1)}h-1z`;
    })
    .join("");
}
