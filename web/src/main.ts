/** Shows the page of the address. */

import { get, trying, type Session } from "./api";
import { say } from "./dom";
import { FolderPage } from "./folder";
import { HomePage } from "./home";
import { dropped, openFiles } from "./opening";
import { SessionPage } from "./session";
import { applyTheme } from "./theme";
import { TrainPage } from "./train";

interface Page {
  element: HTMLElement;
  destroy(): void;
}

const app = document.getElementById("app") as HTMLElement;
let page: Page | null = null;
let turn = 0;

async function route(): Promise<void> {
  const mine = ++turn;
  const [, kind, id] = location.hash.split("/");
  let next: Page | null = null;
  if (kind === "s" && /^[0-9a-f]{16}$/.test(id ?? "")) {
    const session = await trying(() => get<Session>(`/sessions/${id}`));
    if (mine !== turn) return;
    if (session) next = new SessionPage(session);
    else location.hash = "#/";
  } else if (kind === "train") next = new TrainPage();
  else if (kind === "folder") next = new FolderPage();
  page?.destroy();
  page = next ?? new HomePage();
  app.replaceChildren(page.element);
  scrollTo(0, 0);
}

// A file that is dropped on any other page is opened, too.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  if (page instanceof HomePage) return; // it shows the progress itself
  event.preventDefault();
  void openFiles(dropped(event), (at) => at && say(`${at.share < 1 ? "Uploading" : "Reading"} ${at.name} …`));
});

applyTheme();
addEventListener("hashchange", () => void route());
void route();
