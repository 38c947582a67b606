/** What is known of a recording, in a line. */

import { capital, type Session } from "./api";
import { clock } from "./dom";

export function facts({ sound, seconds }: Session): string {
  const channels = ["", "mono", "stereo"][sound.channels] ?? `${sound.channels} channels`;
  return `${clock(seconds, 0)} · ${sound.rate / 1000} kHz · ${channels} · ${encoding(sound.format)}`;
}

/** libsndfile's name of an encoding, as people say it. */
function encoding(format: string): string {
  const [container, subtype = ""] = format.split(" ");
  const depth = /^PCM_[SU]?(\d+)$/.exec(subtype);
  if (depth) return `${container} ${depth[1]} bit`;
  if (subtype === "FLOAT" || subtype === "DOUBLE") return `${container} float`;
  return container === "OGG" ? capital(subtype.toLowerCase()) : container;
}
