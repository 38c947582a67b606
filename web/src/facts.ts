/** Properties of a recording in one line. */

import { capital, type Session } from "./api";
import { clock } from "./dom";

export function facts({ sound, seconds }: Session): string {
  const channels = ["", "mono", "stereo"][sound.channels] ?? `${sound.channels} channels`;
  return `${clock(seconds, 0)} · ${sound.rate / 1000} kHz · ${channels} · ${encoding(sound.format)}`;
}

/** Returns libsndfile's name of an encoding in common words. */
function encoding(format: string): string {
  const [container, subtype = ""] = format.split(" ");
  const depth = /^PCM_[SU]?(\d+)$/.exec(subtype);
  if (depth) return `${container} ${depth[1]} bit`;
  if (subtype === "FLOAT" || subtype === "DOUBLE") return `${container} float`;
  return container === "OGG" ? capital(subtype.toLowerCase()) : container;
}
