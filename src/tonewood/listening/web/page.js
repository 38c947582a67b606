// The listener's page: one question after the other, each answer kept before the next is shown.
import { Player } from "./player.js";

const KEPT = "tonewood-listener", VOLUME = "tonewood-volume";
const WORDS = ["bad", "poor", "fair", "good", "excellent"];
const TASKS = {
  pairs: "Switch between A and B as often as you like. There is no right answer.",
  abx: "X is the very same sound as either A or B. Switch as often as you like.",
  mushra: "Rate each sound from 0 to 100. One of them is the reference itself; give it 100.",
};
const main = document.getElementById("main");
const bar = document.getElementById("progress");
const message = document.getElementById("message");
const leave = document.getElementById("leave");
let test, player, began = 0, keys = {}, frame = 0;

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Ask the server until it answers: what was answered is not given up for a lost connection. */
async function ask(method, path, body) {
  const headers = { "X-Listener": localStorage.getItem(KEPT) ?? "" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    try {
      const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      if (answer.status < 500) {
        message.textContent = "";
        return answer;
      }
    } catch { /* no connection */ }
    message.textContent = "No connection. Your last answer is sent as soon as there is one.";
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function start() {
  test = await (await ask("GET", "api/test")).json();
  document.title = test.title;
  document.getElementById("title").textContent = test.title;
  const known = localStorage.getItem(KEPT);
  if (!known) return consent();
  const answer = await ask("GET", "api/screen");
  if (!answer.ok) {
    localStorage.removeItem(KEPT);
    return consent();
  }
  const state = await answer.json();
  if (state.stage === "done") return show(state);
  // Sound may start only after a gesture, so coming back takes one.
  page("Welcome back", el("p", {}, "Your answers are kept. Go on where you stopped."),
    action("Go on", () => show(state)));
  leave.hidden = false;
}

function page(title, ...content) {
  cancelAnimationFrame(frame);
  player?.pause();
  const head = title ? [el("h2", {}, title)] : [];
  main.replaceChildren(...head, ...content);
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function action(text, act, disabled = false) {
  const button = el("button", { type: "button", class: "main", onclick: act, disabled }, text);
  keys.Enter = () => button.disabled || button.click();
  return button;
}

function consent() {
  keys = {};
  bar.hidden = leave.hidden = true;
  const agreed = el("input", { type: "checkbox", id: "agreed" });
  const button = action("Begin", async () => {
    const answer = await ask("POST", "api/listeners", { agreed: true });
    localStorage.setItem(KEPT, (await answer.json()).listener);
    show(await (await ask("GET", "api/screen")).json());
  }, true);
  agreed.addEventListener("change", () => { button.disabled = !agreed.checked; });
  const paragraphs = test.consent.trim().split(/\n\s*\n/).map((it) => el("p", {}, it.replace(/\n/g, " ")));
  page("Before you begin", el("div", { class: "text" }, ...paragraphs),
    el("label", { class: "row", for: "agreed" }, agreed, "I have read this and take part"), button);
}

async function show(state) {
  keys = {};
  leave.hidden = false;
  bar.hidden = false;
  if (state.stage === "done") return done(state);
  page("", el("p", { class: "quiet" }, "Loading sounds…"));
  bar.max = state.screens;
  bar.value = state.done;
  player ??= new Player(test.rate);
  player.volume = Number(localStorage.getItem(VOLUME) ?? 0.7);
  const files = await Promise.all(state.labels.map(async (_, place) => {
    const answer = await ask("GET", `api/screens/${state.screen}/sounds/${place}`);
    return answer.ok ? answer.arrayBuffer() : null;
  }));
  if (files.includes(null)) return start(); // answered elsewhere meanwhile
  await player.load(files, state.stage !== "hearing" && state.stage !== "headphones");
  began = performance.now();
  ({ volume, hearing, headphones, training: question, trial: question })[state.stage](state);
}

let line = Promise.resolve();

/** Send an answer; they arrive in the order in which they were given. */
function keep(state, value, final) {
  const seconds = (performance.now() - began) / 1000;
  line = line.then(async () => {
    const path = `api/screens/${state.screen}`;
    const answer = await ask("PUT", path, { value, final, seconds });
    const next = await answer.json();
    if (final) show(answer.ok ? next : await (await ask("GET", "api/screen")).json());
  });
}

function transport() {
  const button = el("button", { type: "button", "aria-keyshortcuts": "Space", onclick: toggle }, "Play");
  const inner = el("i");
  async function toggle() {
    if (player.playing) player.pause();
    else await player.play();
    draw();
  }
  function draw() {
    cancelAnimationFrame(frame);
    button.textContent = player.playing ? "Pause" : "Play";
    inner.style.width = `${(100 * player.position) / (player.duration || 1)}%`;
    if (player.playing) frame = requestAnimationFrame(draw);
  }
  player.onend = draw;
  keys[" "] = () => button.click();
  keys.ArrowLeft = () => { player.restart(); draw(); };
  const time = el("div", { class: "time", "aria-hidden": "true" }, inner);
  return { node: el("div", { class: "transport" }, button, time), draw };
}

function volume(state) {
  const { node } = transport();
  const slider = el("input", {
    type: "range", id: "volume", min: 0, max: 1, step: 0.01,
    value: localStorage.getItem(VOLUME) ?? 0.7,
    oninput: () => {
      player.volume = Number(slider.value);
      localStorage.setItem(VOLUME, slider.value);
    },
  });
  page("Set a comfortable volume",
    el("p", { class: "quiet" }, "Put your headphones on, play the sound and set the volume. Leave it as it is from then on."),
    node, el("div", {}, el("label", { for: "volume" }, "Volume"), slider),
    action("This is comfortable", () => keep(state, "set", true)));
}

function single(state, title, told, legend, values, names) {
  const { node } = transport();
  const next = action("Next", () => keep(state, chosen(), true), true);
  const choices = radios(legend, values, names, state.draft, () => {
    next.disabled = false;
    keep(state, chosen(), false);
  });
  const chosen = () => choices.querySelector("input:checked")?.value;
  page(title, el("p", { class: "quiet" }, told), node, choices,
    el("div", { class: "row spread" }, next, count(state)));
  next.disabled = !chosen();
}

function hearing(state) {
  const values = ["1", "2", "3", "4", "5", "6"];
  single(state, "How many soft tones do you hear?", "They are quite soft. You may listen again.",
    "Number of tones", values, values);
}

function headphones(state) {
  single(state, "Which tone is the softest?", "You hear three tones, one after the other.",
    "The softest tone", ["1", "2", "3"], ["first", "second", "third"]);
}

function radios(legend, values, names, value, changed) {
  const shape = names.some((it) => it.length > 1) ? "choices words" : "choices";
  return el("fieldset", {}, el("legend", {}, legend), el("div", { class: shape },
    ...values.map((it, k) => el("label", {}, el("input", {
      type: "radio", name: "choice", value: it, checked: value === it, onchange: changed,
    }), names[k]))));
}

function count(state) {
  const what = { training: "Practice", trial: "Question" }[state.stage] ?? "Check";
  return el("p", { class: "count" }, `${what} ${state.number} of ${state.of}`);
}

function question(state) {
  const rated = test.kind === "mushra";
  const { node, draw } = transport();
  const buttons = state.labels.map((label, place) => el("button", {
    type: "button", class: "sound", "aria-pressed": "false",
    "aria-label": label === "reference" ? "Play the reference" : `Play ${label}`,
    "aria-keyshortcuts": key(label), onclick: () => hear(place),
  }, label === "reference" ? "Reference" : label));
  function key(label) { return label === "reference" ? "R" : label; }
  async function hear(place) {
    player.choose(place);
    buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(k === place)));
    if (!player.playing) await player.play();
    player.heard.add(place);
    draw();
    settle();
  }
  const next = action("Next", () => keep(state, value(), true), true);
  const hint = el("p", { class: "count" });
  const answers = rated ? sliders(state, buttons, changed) : choice(state, changed);
  const value = answers.value;
  function changed() {
    keep(state, value(), false);
    settle();
  }
  function settle() {
    const heard = player.heard.size === state.labels.length;
    next.disabled = !heard || !answers.whole();
    hint.textContent = heard ? "" : "Listen to all of them first.";
  }
  const open = rated ? [buttons[0]] : buttons;
  const practice = state.stage === "training"
    ? [el("p", { class: "quiet" }, "This one is for practice and does not count.")] : [];
  page(test.question, ...practice, el("p", { class: "quiet" }, TASKS[test.kind]), node,
    el("div", { class: "sounds" }, ...open), answers.node,
    el("div", { class: "row spread" }, next, el("div", {}, hint, count(state))), shortcuts(state));
  node.querySelector("button").addEventListener("click", () => {
    if (player.playing) hear(player.current);
  });
  state.labels.forEach((label, place) => {
    const pressed = () => {
      // So that arrows rate what is heard, and nothing while it is the reference.
      if (rated) (document.getElementById(`rate-${label}`) ?? main).focus({ preventScroll: true });
      hear(place);
    };
    keys[key(label).toLowerCase()] = pressed;
    keys[String(place + (rated ? 0 : 1))] = pressed;
  });
  settle();
}

function choice(state, changed) {
  const legend = test.kind === "abx" ? "X is the same as" : "I prefer";
  const node = radios(legend, ["A", "B"], ["A", "B"], state.draft, changed);
  const value = () => node.querySelector("input:checked")?.value;
  for (const it of node.querySelectorAll("input")) keys[`Shift ${it.value}`] = () => it.click();
  return { node, value, whole: () => value() !== undefined };
}

function sliders(state, buttons, changed) {
  const given = new Map(Object.entries(state.draft ?? {}));
  const rows = state.labels.slice(1).map((label, k) => {
    const output = el("output", { for: `rate-${label}` }, given.has(label) ? String(given.get(label)) : "–");
    const slider = el("input", {
      type: "range", id: `rate-${label}`, min: 0, max: 100, step: 1, "aria-label": `Rating of ${label}`,
      value: given.get(label) ?? 50, class: given.has(label) ? null : "unrated",
      oninput: () => {
        output.textContent = slider.value;
        slider.classList.remove("unrated");
      },
      onchange: () => { given.set(label, Number(slider.value)); changed(); },
    });
    return el("div", { class: "rating" }, buttons[k + 1], slider, output);
  });
  const scale = el("div", { class: "rating", "aria-hidden": "true" }, el("span"),
    el("div", { class: "scale" }, ...WORDS.map((word) => el("span", {}, word))), el("span"));
  const node = el("fieldset", {}, el("legend", {}, "Ratings"), scale, ...rows);
  return { node, value: () => Object.fromEntries(given), whole: () => given.size === rows.length };
}

function shortcuts(state) {
  const named = state.labels.map((label) => el("kbd", {}, label === "reference" ? "R" : label));
  const answer = test.kind === "mushra" ? [el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " rate, "]
    : [el("kbd", {}, "Shift"), " and letter answer, "];
  return el("p", { class: "count keys" }, "Keys: ", el("kbd", {}, "Space"), " play or pause, ",
    ...named.flatMap((it) => [it, " "]), "switch, ", ...answer, el("kbd", {}, "←"), " from the start, ",
    el("kbd", {}, "Enter"), " next");
}

function done(state) {
  page("Thank you", el("p", {}, "All your answers are kept. Your completion code:"),
    el("p", { class: "code" }, state.code),
    el("p", { class: "quiet" }, "You may close this page now."));
  bar.value = bar.max;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const inside = event.target instanceof HTMLElement ? event.target : document.body;
  const range = inside.matches("input[type=range], input[type=radio]");
  if (range && event.key.startsWith("Arrow")) return;
  if (event.key === "Enter" && inside.matches("button, a")) return; // it does what it says
  if (event.key === " " && inside.matches("input[type=checkbox], input[type=radio]:not(:checked)")) return;
  const name = event.key.length === 1 && event.shiftKey ? `Shift ${event.key.toUpperCase()}` : event.key;
  const act = keys[name] ?? keys[name.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});
leave.addEventListener("click", () => document.getElementById("sure").showModal());
document.getElementById("sure").addEventListener("close", async (event) => {
  if (event.target.returnValue !== "yes") return;
  event.target.returnValue = "";
  await ask("DELETE", "api/listeners");
  localStorage.removeItem(KEPT);
  consent();
});
start();
