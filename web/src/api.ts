/** Typed responses of the server, requests, and server-sent events. */

import { say } from "./dom";

export interface Note {
  id: string;
  seconds: number;
  hz: number;
  width_s: number;
  height_hz: number;
  gain_db: number;
  pinned: boolean;
  muted: boolean;
}

export interface Area {
  id: string;
  start_s: number;
  end_s: number;
  low_hz: number;
  high_hz: number;
  amount: number;
}

export interface Shape {
  smooth_octaves: number;
  smooth_seconds: number;
  low_hz: number | null;
  high_hz: number | null;
  direction: "both" | "cut" | "boost";
}

/** Frequencies in Hz and gains in dB that join the static part of the found mask, or replace it. */
export interface Curve {
  points: [number, number][];
  replaces_static: boolean;
}

export interface Edit {
  amount: number;
  shape?: Shape; // of the found mask
  curve?: Curve;
  notes: Note[];
  areas: Area[];
}

export interface Levels {
  input_db: number;
  difference_db: number;
  output_db: number;
  held: boolean;
  exact: boolean;
}

export interface Statement {
  kind: "good" | "caution" | "plain" | "refused" | "none"; // none: does not apply
  title: string;
  text: string;
}

export interface Change {
  before: number;
  after: number;
}

export interface Certificate {
  current: boolean;
  verdict: "good" | "limited" | "refused" | "unneeded";
  treatment: "unchanged" | "fixed" | "moving";
  size: string;
  heading: Statement;
  statements: Statement[];
  scorer: Change;
  judge: Change | null;
  reasons: string[];
}

/** What a running search has found of a recording's mask. */
export interface Part {
  found: number; // number of the mask, which the search after a cancelled one uses again
  seconds: number;
  job: string;
}

/** What has a mask of its own; "all": one mask for all channels. */
export type Link = "all" | "mid-side" | "off";

export interface State {
  part?: Part | null; // known to this page only
  number: number;
  found: number | null;
  link: Link;
  components: string[]; // that have masks of their own: mid and side, or numbers of channels
  edit: Edit;
  undo: boolean;
  redo: boolean;
  key: string;
  whole: boolean;
  levels: Levels;
  certificate: Certificate | null;
  model: string | null; // that found the mask
  lost: boolean; // that model does not exist any more
}

/** Returns the number of the mask that is shown and played. */
export const maskOf = (state: State): number | null => state.part?.found ?? state.found;

/** Returns a state that shows what a search has found so far; the rendering is of the mask before. */
export const inPart = (state: State, part: Part | null): State =>
  part && part.found !== state.found ? { ...state, part, whole: false, link: "all", components: [] } : state;

/** Returns whether there is something to compare with the original. */
export const isMasked = (state: State): boolean => maskOf(state) !== null || state.edit.notes.length > 0;

export interface Listed {
  id: string;
  title: string;
  changed: number;
  seconds: number;
  model: string;
}

export interface Axes {
  low_hz: number;
  high_hz: number;
  rows: number;
  columns: number;
  finest_s: number;
  levels: number;
}

export interface Saliency {
  digest: string;
  reach: number;
  holds: boolean;
  verdict: string;
}

export interface Session extends Listed {
  sound: {
    rate: number;
    channels: number;
    samples: number;
    clipped: boolean;
    format: string;
    suffix: string;
  };
  axes: Axes;
  state: State;
  saliency: Saliency | null;
  jobs: Job[];
}

export interface Job {
  id: string;
  session: string | null;
  kind: string;
  state: "queued" | "running" | "done" | "failed" | "cancelled" | "interrupted";
  told: Record<string, any>;
  created: number;
  ahead?: number; // jobs before it in its queue
  running_s?: number | null; // since it was started
  expected_s?: number | null; // as long as searches of recordings like it took
}

export interface Formats {
  upload_bytes: number;
  sounds: string[];
  equalisers: { name: string; title: string }[];
}

export interface ModelCard {
  name: string;
  domain?: string;
  reference?: string;
  source?: string;
  hours?: number;
  accuracy?: number;
  error?: string;
}

export interface Place {
  id: string;
  name: string;
  trail: { id: string; name: string }[];
  folders: { id: string; name: string; sounds: number }[];
  sounds: number;
  more: number;
}

export class Refused extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text);
  }
}

export async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  // keepalive: a change is stored even if the page is closed before the response.
  const init: RequestInit = { method, headers, keepalive: method === "PUT" || method === "DELETE" };
  if (body instanceof Blob) init.body = body;
  else if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, "Content-Type": "application/json" };
  }
  let answer: Response;
  try {
    answer = await fetch(`/api${path}`, init);
  } catch {
    throw new Refused(0, "the studio does not answer: check that it is still running");
  }
  if (!answer.ok) throw new Refused(answer.status, await reason(answer));
  return answer;
}

async function reason(answer: Response): Promise<string> {
  try {
    return ((await answer.json()) as { error: string }).error;
  } catch {
    return `the studio answered ${answer.status}`;
  }
}

export async function get<T>(path: string): Promise<T> {
  return (await ask("GET", path)).json() as Promise<T>;
}

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  return (await ask("POST", path, body)).json() as Promise<T>;
}

export async function put<T>(path: string, body: unknown): Promise<T> {
  return (await ask("PUT", path, body)).json() as Promise<T>;
}

/** Uploads a recording or a session file and reports the progress. */
export function upload(file: Blob, name: string, progress: (share: number) => void): Promise<Session> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/recordings?name=${encodeURIComponent(name)}`);
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(event.total, 1));
    request.onerror = () => reject(new Refused(0, "the upload was interrupted: check that the studio is still running"));
    request.onload = () => {
      let told: Session & { error?: string };
      try {
        told = JSON.parse(request.responseText);
      } catch {
        reject(new Refused(request.status, `the studio answered ${request.status}`));
        return;
      }
      if (request.status === 201) resolve(told);
      else reject(new Refused(request.status, told.error ?? `the studio answered ${request.status}`));
    };
    request.send(file);
  });
}

/** Changes of a session's jobs, and of jobs on folders. */
export class Listening {
  private source: EventSource;
  private last = new Map<string, Job>();

  constructor(session: string | null, heard: (job: Job) => void, back: () => void) {
    this.source = new EventSource(`/api/events${session ? `?session=${session}` : ""}`);
    let lost = false;
    this.source.addEventListener("error", () => (lost = true));
    this.source.addEventListener("open", () => {
      if (lost) back(); // the server was not reachable and may have been restarted
      lost = false;
    });
    this.source.addEventListener("job", (event) => {
      const job = JSON.parse((event as MessageEvent<string>).data) as Job;
      this.last.set(job.id, job);
      heard(job);
    });
  }

  /** Returns the newest version of a job: an event may arrive before the response that started it. */
  latest(job: Job): Job {
    return this.last.get(job.id) ?? job;
  }

  close(): void {
    this.source.close();
  }
}

export function over(job: Job): boolean {
  return !["queued", "running"].includes(job.state);
}

export function cancel(job: Job | null): void {
  if (job && !over(job)) void trying(() => ask("DELETE", `/jobs/${job.id}`));
}

/** Runs a request and shows its error, if it fails. */
export async function trying<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    say(error instanceof Error ? capital(error.message) : String(error), "error");
    return undefined;
  }
}

/** Starts a sentence with a capital, but leaves the name of a file as it is. */
export function capital(text: string): string {
  if (/^\S*\.[a-z0-9-]+\b/i.test(text)) return text;
  return text.charAt(0).toUpperCase() + text.slice(1);
}
