/** Uploads recordings or session files, and opens their pages. */

import { get, trying, upload, type Formats, type Session } from "./api";
import { say } from "./dom";

export interface Opening {
  name: string;
  share: number; // of the upload
}

/** Uploads files one after the other; a single one is opened. Returns the new sessions. */
export async function openFiles(files: { file: Blob; name: string }[], progress: (at: Opening | null) => void): Promise<Session[]> {
  // Checked here, because the server may close the connection before its reason arrives.
  const most = (await trying(() => get<Formats>("/formats")))?.upload_bytes;
  if (most === undefined) return [];
  const opened: Session[] = [];
  for (const { file, name } of files) {
    if (file.size > most) {
      say(`${name} has ${gib(file.size)}; the limit is ${gib(most)}: cut it, or start the studio with a larger --upload-gb`, "error");
      continue;
    }
    performance.mark("upload-started");
    progress({ name, share: 0 });
    const session = await trying(() =>
      upload(file, name, (share) => {
        progress({ name, share });
        if (share >= 1) performance.mark("upload-ended");
      }),
    );
    if (session) opened.push(session);
  }
  progress(null);
  if (files.length === 1 && opened.length) location.hash = `#/s/${opened[0].id}`;
  return opened;
}

/** Returns the files of a drop. */
export function dropped(event: DragEvent): { file: Blob; name: string }[] {
  return [...(event.dataTransfer?.files ?? [])].map((file) => ({ file, name: file.name }));
}

function gib(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}
