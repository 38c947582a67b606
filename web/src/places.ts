/** The dialogue that chooses a folder on the server. */

import { get, trying, type Place } from "./api";
import { button, h, icon } from "./dom";

export interface Chosen {
  id: string;
  name: string;
  trail: string;
  sounds: number;
}

/** Asks for a folder; resolves to null if none was chosen. */
export function choosePlace(title: string): Promise<Chosen | null> {
  return new Promise((resolve) => {
    const list = h("ul", { class: "places" });
    const trail = h("nav", { class: "trail", "aria-label": "Path" });
    const told = h("p", { class: "quiet", role: "status" });
    let here: Place | null = null;
    const finish = (chosen: Chosen | null) => {
      dialog.close();
      dialog.remove();
      resolve(chosen);
    };
    const choose = button("Choose this folder", null, () => {
      if (!here) return;
      const path = here.trail.map((place) => place.name).join(" / ");
      finish({ id: here.id, name: here.name, trail: path, sounds: here.sounds });
    }, { class: "primary" });
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-label": title },
      h("h2", {}, title),
      trail,
      list,
      told,
      h("div", { class: "row end" }, button("Cancel", null, () => finish(null)), choose),
    );
    dialog.addEventListener("cancel", () => finish(null));
    let turn = 0;
    const open = async (id?: string) => {
      const mine = ++turn;
      choose.disabled = true; // until the folder is shown
      const place = await trying(() => get<Place>(`/places${id ? `?at=${id}` : ""}`));
      if (mine !== turn) return;
      choose.disabled = !place && !here;
      if (!place) {
        if (!here) finish(null);
        return;
      }
      here = place;
      trail.replaceChildren(
        ...place.trail.map((step) => h("button", { type: "button", class: "link", onclick: () => void open(step.id) }, step.name)),
      );
      list.replaceChildren(
        ...place.folders.map((folder) =>
          h(
            "li",
            {},
            h(
              "button",
              { type: "button", onclick: () => void open(folder.id) },
              icon("folder"),
              h("span", {}, folder.name),
              folder.sounds > 0 && h("span", { class: "quiet" }, counted(folder.sounds)),
            ),
          ),
        ),
      );
      told.textContent =
        (place.sounds ? `${counted(place.sounds)} here; subfolders are included.` : "No recordings here; subfolders are included.") +
        (place.more ? ` ${place.more} more folders are not shown.` : "");
    };
    document.body.append(dialog);
    dialog.showModal();
    void open();
  });
}

export function counted(sounds: number): string {
  return `${sounds} recording${sounds === 1 ? "" : "s"}`;
}

/** A line with the chosen folder, and a button to choose it. */
export function placeField(label: string, hint: string, chosen: (place: Chosen) => void, before: Chosen | null = null): HTMLElement {
  const told = h("p", { class: "chosen quiet" }, hint);
  const show = (place: Chosen) => {
    told.textContent = `${place.trail}${place.sounds ? ` · ${counted(place.sounds)}` : ""}`;
    told.classList.remove("quiet");
  };
  if (before) show(before);
  const act = button("Choose …", "folder", async () => {
    const place = await choosePlace(label);
    if (!place) return;
    show(place);
    chosen(place);
  }, { "aria-label": `Choose: ${label}` });
  return h("div", { class: "field place" }, h("div", {}, h("strong", {}, label), told), act);
}
