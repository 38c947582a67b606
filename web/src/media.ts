/** Presents the player to wavesurfer.js. */

import type { Player } from "./player";

/** The part of a media element that wavesurfer.js uses. */
export class Media extends EventTarget {
  src = "";
  currentSrc = "";
  volume = 1;
  muted = false;
  playbackRate = 1;
  readyState = 4;
  seeking = false;
  ended = false;

  constructor(private player: Player) {
    super();
    for (const kind of ["play", "pause", "timeupdate", "ended", "seeking"]) {
      player.addEventListener(kind, () => this.dispatchEvent(new Event(kind)));
    }
  }

  get currentTime(): number {
    return this.player.position;
  }

  set currentTime(seconds: number) {
    this.player.seek(seconds);
  }

  get duration(): number {
    return this.player.duration;
  }

  get paused(): boolean {
    return !this.player.playing;
  }

  play(): Promise<void> {
    return this.player.play();
  }

  pause(): void {
    this.player.pause();
  }

  load(): void {}
  remove(): void {}
  removeAttribute(): void {}
  canPlayType(): string {
    return "";
  }
}
