// One picture after the other, or two beside each other, and what a person decides about them.

import { session } from "./keeping.js";
import { Pictures } from "./pictures.js";

const element = (id) => document.getElementById(id);
const KEYS = 9; // classes with a key of their own; the others are found by typing
const WORDS = { wrong: "wrong", duplicate: "duplicate", skip: "skipped" };
const pictures = new Pictures();
let images, decisions, classes, suggested, tested, version;
let lists, list, at, selected; // an entry of a list: one image, or the two of a pair
let drawn = ""; // what the pictures show
let undoable = [];
let last = Promise.resolve(); // posts go one after the other
const waiting = new Map(); // image -> posts on their way

function notice(text, good = false) {
  element("notice").textContent = text;
  element("notice").classList.toggle("good", good);
  element("notice").hidden = !text;
}

const decision = (image) => decisions.get(image) ?? { state: "", label: "", number: 0 };
// By its folder, or by the table: where a run held images out, no folder says so.
const isTest = (image) => images[image][2] === "test" || tested.has(image);
const aside = (image) => ["wrong", "duplicate"].includes(decision(image).state);

// A pair is decided once one of its images takes no part, or both were looked at.
function done({ images: shown }) {
  return shown.every((image) => decision(image).state) || (shown.length > 1 && shown.some(aside));
}

function remaining() {
  return list.filter((entry) => !done(entry)).length;
}

// The first undecided entry from a place on, then from the beginning; the place itself when there is none.
function undecided(from) {
  for (let step = 0; step < list.length; step++) {
    const place = (from + step) % list.length;
    if (!done(list[place])) return place;
  }
  return Math.min(from, list.length - 1);
}

function make(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

function figure(image, place, { images: shown, kind }) {
  const pair = shown.length > 1;
  const [name, folder] = images[image];
  const frame = make("div", "frame");
  pictures.url(image).then((url) => {
    const picture = make("img", "");
    picture.src = url;
    picture.alt = name;
    picture.draggable = false;
    frame.append(picture);
  }, (error) => frame.append(make("p", "gone", `No picture: ${error.message}`)));
  const { state, label } = decision(image);
  const caption = make("figcaption", "");
  caption.append(make("span", "says", folder || "no label"));
  if (pair && kind) caption.append(make("span", "", kind));
  if (isTest(image)) caption.append(make("span", "badge", "test"));
  if (state) caption.append(make("span", "decided", state === "label" ? `→ ${label}` : `→ ${WORDS[state]}`));
  else if (suggested[image]) caption.append(make("span", "", `likely ${suggested[image]}`));
  caption.append(make("span", "name", name));
  const made = make("figure", pair && place === selected ? "selected" : "");
  made.append(frame, caption);
  if (pair) {
    const pick = make("button", "pick", place === selected ? "Decide on this one" : "Choose this one");
    pick.type = "button";
    pick.setAttribute("aria-pressed", String(place === selected));
    pick.onclick = () => select(place);
    made.append(pick);
  }
  return made;
}

function select(place) {
  selected = place;
  show();
}

const current = () => list[at]?.images[selected];

function show() {
  const entry = list[at];
  const finished = list.length - remaining();
  element("count").textContent = `${finished.toLocaleString("en")} of ${list.length.toLocaleString("en")} decided`;
  element("progress").max = Math.max(1, list.length);
  element("progress").value = finished;
  const pair = entry?.images.length > 1;
  const shown = entry?.images ?? [];
  const looks = JSON.stringify([shown, shown.map((image) => [decision(image).state, decision(image).label]), selected]);
  if (looks !== drawn) { // otherwise the picture would flicker
    drawn = looks;
    element("pictures").replaceChildren(...shown.map((image, place) => figure(image, place, entry)));
    element("pictures").dataset.image = current() ?? "";
  }
  element("tested").hidden = list !== lists.order?.entries || !shown.some(isTest);
  element("skip").firstChild.textContent = pair ? "Keep both" : "Skip";
  buttons();
  element("undo").disabled = !undoable.length;
  for (const button of document.querySelectorAll("#classes button, #wrong, #duplicate, #skip")) button.disabled = !entry;
  for (let next = at + 1; next < Math.min(at + 5, list.length); next++) list[next].images.forEach((i) => pictures.ahead(i));
}

// The class that Enter stands for: what a table suggests, else what the folder says.
const likely = () => suggested[current()] || images[current()]?.[1];

function buttons() {
  const shown = classes.slice(0, KEYS).map((name, number) => {
    const button = make("button", name === likely() ? "main" : "", name);
    button.append(make("kbd", "", number + 1));
    button.onclick = () => decide("label", name);
    return button;
  });
  const other = make("button", "", classes.length > KEYS ? `${classes.length - KEYS} more …` : "Another …");
  other.append(make("kbd", "", "t"));
  other.onclick = choose;
  for (const button of [...shown, other]) button.type = "button";
  element("classes").replaceChildren(...shown, other);
}

function go(place) {
  if (place < 0 || place >= list.length) return;
  at = place;
  // Of a pair across the split the training image is decided about: the test image should stay.
  const tests = list[at].images.map(isTest);
  selected = tests[1] && !tests[0] ? 0 : tests.length - 1;
  show();
}

function onwards() {
  go(undecided(at + 1));
  if (!remaining()) notice(list.length ? "Everything here is decided." : "", true);
}

async function post(address, values) {
  let answer;
  try {
    answer = await fetch(`${address}?s=${session()}`, { method: "POST", body: JSON.stringify(values) });
  } catch {
    throw new Error("The computer does not answer. Is softedge review still running there?");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  for (const [image, [state, label, number]] of Object.entries(said.changes)) {
    if (!waiting.has(Number(image)) || said.stale) decisions.set(Number(image), { state, label, number });
    else decisions.get(Number(image)).number = number; // this window has decided again meanwhile
  }
  [version, classes] = [said.version, said.classes];
  return said;
}

// Shown at once, sent behind; what could not be saved is taken back and shown again.
function send(image, state, label, place) {
  const before = decision(image);
  const ours = waiting.has(image); // the latest that stands there is this window's own
  decisions.set(image, { ...before, state, label });
  waiting.set(image, (waiting.get(image) ?? 0) + 1);
  const answered = () => {
    if (waiting.get(image) > 1) waiting.set(image, waiting.get(image) - 1);
    else waiting.delete(image);
  };
  last = last.then(async () => {
    const seen = ours ? decision(image).number : before.number;
    try {
      const values = { image, state, label, seen, since: version };
      const said = await post("decide", values).finally(answered);
      if (!said.stale) {
        show();
        return;
      }
      const now = decision(image);
      const words = now.state === "label" ? `‘${now.label}’` : now.state ? `‘${WORDS[now.state]}’` : "to take a decision back";
      notice(`Another window decided ${words} for this image meanwhile. Decide again to overrule it.`);
    } catch (error) {
      decisions.set(image, { ...before, number: decision(image).number });
      notice(`${error.message} This decision was not saved.`);
    }
    undoable = undoable.filter((step) => !step.images.includes(image));
    go(place);
  });
}

function decide(state, label = "") {
  const entry = list[at];
  if (!entry) return;
  notice("");
  let chosen = [current()];
  if (state === "skip" && entry.images.length > 1) chosen = entry.images.filter((image) => !decision(image).state);
  undoable.push({ entry, images: chosen, before: chosen.map(decision) });
  for (const image of chosen) send(image, state, label, at);
  onwards();
}

function undo() {
  const step = undoable.pop();
  if (!step) return;
  notice("");
  const place = list.indexOf(step.entry);
  step.images.forEach((image, i) => send(image, step.before[i].state, step.before[i].label, Math.max(place, 0)));
  if (place >= 0) go(place);
  else show();
}

function choose() {
  if (!list[at]) return;
  element("filter").value = "";
  choices();
  element("choose").showModal();
  element("filter").focus();
}

function choices() {
  const typed = element("filter").value.trim();
  const found = classes.filter((name) => name.toLowerCase().includes(typed.toLowerCase()));
  if (typed && !classes.some((name) => name.toLowerCase() === typed.toLowerCase())) found.push(typed);
  element("labels").replaceChildren(...found.map((name) => {
    const button = make("button", "", classes.includes(name) ? name : `New class ‘${name}’`);
    button.type = "button";
    button.onclick = () => chosen(name);
    return button;
  }));
}

function chosen(name) {
  element("choose").close();
  decide("label", name);
}

function pressed(event) {
  if (element("choose").open || event.target.matches("select, input") || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  if (event.ctrlKey && key !== "z") return;
  if (key === "enter" && event.target.matches("button")) return; // presses the button
  const actions = {
    x: () => decide("wrong"), d: () => decide("duplicate"), s: () => decide("skip"), z: undo, t: choose,
    arrowleft: () => go(at - 1), arrowright: () => go(at + 1),
    o: () => list[at]?.images.length > 1 && select(1 - selected),
    enter: () => likely() && decide("label", likely()),
  };
  const number = Number(key);
  if (number >= 1 && number <= Math.min(KEYS, classes.length)) actions[key] = () => decide("label", classes[number - 1]);
  if (!actions[key]) return;
  event.preventDefault();
  if (!event.repeat || key.startsWith("arrow")) actions[key](); // a key that is held down decides once
}

function swipes() {
  let began = null;
  const stage = element("pictures");
  stage.addEventListener("pointerdown", (event) => { began = event.pointerType === "touch" ? event : null; });
  stage.addEventListener("pointerup", (event) => {
    if (!began) return;
    const [across, down] = [event.clientX - began.clientX, event.clientY - began.clientY];
    if (Math.abs(across) > 50 && Math.abs(across) > 2 * Math.abs(down)) go(at + (across < 0 ? 1 : -1));
    began = null;
  });
}

function open(name) {
  list = lists[name].entries;
  undoable = [];
  at = 0;
  notice("");
  go(undecided(0));
  if (!list.length) show();
}

function collect({ title, order, pairs }) {
  const one = (image) => ({ images: [image] });
  const every = images.map((_, image) => image);
  lists = {};
  if (pairs.length) lists.pairs = { title: `Pairs of ${title}`, entries: pairs.map(([a, b, kind]) => ({ images: [a, b], kind })) };
  if (order.length) lists.order = { title: `Order of ${title}`, entries: order.map(one) };
  const unlabelled = every.filter((image) => !images[image][1]).map(one);
  if (unlabelled.length) lists.unlabelled = { title: "Unlabelled images", entries: unlabelled };
  lists.all = { title: "All images", entries: every.map(one) };
  for (const [name, { title: text }] of Object.entries(lists)) {
    const option = make("option", "", text);
    option.value = name;
    element("show").append(option);
  }
}

async function main() {
  const answer = await fetch("start.json");
  if (!answer.ok) throw new Error((await answer.json()).error);
  const start = await answer.json();
  ({ images, classes, suggested, version } = start);
  tested = new Set(start.tested);
  decisions = new Map(Object.entries(start.changes).map(([i, [state, label, number]]) => [Number(i), { state, label, number }]));
  collect(start);
  for (const state of ["wrong", "duplicate", "skip"]) element(state).onclick = () => decide(state);
  element("undo").onclick = undo;
  element("back").onclick = () => go(at - 1);
  element("forward").onclick = () => go(at + 1);
  element("show").onchange = ({ target }) => { open(target.value); target.blur(); };
  element("filter").oninput = choices;
  element("typed").onsubmit = (event) => {
    event.preventDefault();
    element("labels").querySelector("button")?.click();
  };
  element("cancel").onclick = () => element("choose").close();
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => { // what other windows did meanwhile
    if (!document.hidden) last = last.then(() => post("sync", { since: version }).then(show, (error) => notice(error.message)));
  });
  swipes();
  open(element("show").value);
}

main().catch((error) => notice(error instanceof TypeError ? "The images could not be listed. Reload the page." : error.message));
