/** Dialogues: a question with choices, and the list of shortcuts. */

import { button, h } from "./dom";

interface Choice {
  value: string;
  text: string;
}

/** Asks a question; resolves to the chosen value, or to null. */
export function choose(title: string, text: string, choices: Choice[], act: string): Promise<string | null> {
  return new Promise((resolve) => {
    const finish = (value: string | null) => {
      dialog.close();
      dialog.remove();
      resolve(value);
    };
    const inputs = choices.map(({ value }, n) => h("input", { type: "radio", name: "choice", value, checked: n === 0 }));
    const form = h(
      "form",
      { method: "dialog", class: "sheet" },
      h("h2", {}, title),
      h("p", { class: "quiet" }, text),
      h("div", { class: "radios" }, ...choices.map((choice, n) => h("label", {}, inputs[n], choice.text))),
      h(
        "div",
        { class: "row end" },
        button("Cancel", null, () => finish(null)),
        h("button", { type: "submit", class: "button primary" }, act),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      finish(inputs.find((input) => input.checked)?.value ?? null);
    });
    const dialog = h("dialog", { class: "dialog", "aria-label": title }, form);
    dialog.addEventListener("cancel", () => finish(null));
    document.body.append(dialog);
    dialog.showModal();
  });
}

const SHORTCUTS: [string, [string, string][]][] = [
  ["Listen", [
    ["Space", "play or pause"],
    ["1, 2, 3", "original, enhanced, difference"],
    ["← →", "one second back or forward; with Shift, five"],
    ["Home, End", "start, end"],
    ["S", "solo of the selected note or area"],
  ]],
  ["Picture", [
    ["+ −", "zoom in time; also Ctrl and wheel, or pinch"],
    ["F, Shift-F", "zoom in frequency; also Alt and wheel, or the wheel on the axis"],
    ["0", "show everything"],
    ["Drag", "scroll; with Shift, draw a loop"],
  ]],
  ["Edit", [
    ["V, N, A, L", "move, note, area, draw loop"],
    ["Arrows", "move the selected note; with Shift, resize it; with Alt, finely"],
    ["+ −", "gain of the selected note; also Alt and wheel"],
    ["H, P, M", "harmonics, pin, mute the selected note"],
    ["Page Up, Page Down", "the note or area before, after"],
    ["Delete", "delete it"],
    ["Ctrl-Z, Ctrl-Shift-Z", "undo, redo"],
    ["Double-click", "reset a slider; click its value to type one"],
  ]],
];

/** Shows the shortcuts of the page. */
export function showShortcuts(): void {
  const close = () => {
    dialog.close();
    dialog.remove();
  };
  const dialog = h(
    "dialog",
    { class: "dialog wide", "aria-label": "Shortcuts" },
    h("h2", {}, "Shortcuts"),
    h(
      "div",
      { class: "shortcuts", tabindex: "0", role: "region", "aria-label": "List of shortcuts" },
      ...SHORTCUTS.map(([title, rows]) =>
        h("section", {}, h("h3", {}, title), h("dl", {}, ...rows.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text))))),
      ),
    ),
    h("div", { class: "row end" }, button("Close", null, close)),
  );
  dialog.addEventListener("cancel", close);
  document.body.append(dialog);
  dialog.showModal();
}
