/** Keyboard shortcuts. */

export type Acts = Record<string, (shift: boolean) => void>;

/** Returns whether the page handles a key, and not the focused control. */
function isOurs(event: KeyboardEvent, target: HTMLElement): boolean {
  const writes = target.matches("input:not([type=range]), textarea, select, [contenteditable]");
  if (document.querySelector("dialog[open]") || writes) return false;
  const pressed = event.key === " " && target.matches("button, a, summary") && target.matches(":focus-visible");
  return !pressed || target.matches(".block, .play");
}

const MOVES = /^(Arrow|Home$|End$)/;

/** Calls the action of a key; with Ctrl or Cmd, that of "Ctrl-" and the key. */
export function typed(event: KeyboardEvent, acts: Acts): void {
  const target = event.target as HTMLElement;
  if (!isOurs(event, target) || event.altKey) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!command && MOVES.test(key) && target.matches("input[type=range]")) return;
  const act = acts[command ? `Ctrl-${key}` : key];
  if (!act) return;
  event.preventDefault();
  act(event.shiftKey);
}
