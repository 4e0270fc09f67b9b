// One question after the other: pictures, classes, keys. What was answered lies on the server, in the CSV.

import { find, make, percent, picture } from "./page.js";

const facts = JSON.parse(find("facts").textContent);
const questions = facts.questions;
let classes = facts.classes;
let following = facts.next; // what to do with the answers
let at = Math.max(0, questions.findIndex((question) => !question.label));
let ended = false;
let waiting = Promise.resolve(); // what was pressed is done in order, however fast
let failures = 0; // what was pressed before one is not done: it was meant for what came next
// What can be undone: [place, label before]. The tab keeps it, for whoever loads the page again.
const store = `answers in ${facts.file} on ${questions.map((question) => question.row)}`;
const past = JSON.parse(sessionStorage.getItem(store) ?? "[]");
const keepPast = () => sessionStorage.setItem(store, JSON.stringify(past));
const DIGITS = [..."1234567890"];
const many = classes.length > DIGITS.length; // then classes are chosen by their first letters

// Each class's digit: its own name where all of them are digits, otherwise its place. None changes while the page is open.
const keys = new Map();
function assignKeys() {
  const digits = classes.slice(0, DIGITS.length).every((name) => DIGITS.includes(name));
  for (const name of many ? [] : classes) {
    if (keys.has(name)) continue;
    const free = DIGITS.filter((digit) => ![...keys.values()].includes(digit));
    keys.set(name, digits && free.includes(name) ? name : free[0]);
  }
}
const answered = () => questions.filter((question) => question.label).length;

function curve(values, name) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const across = Math.max(1, values.length - 1);
  const points = values.map((v, k) => `${((300 * k) / across).toFixed(1)},${(96 - (92 * (v - low)) / span).toFixed(1)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 300 100");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `the values of ${name}, from ${low.toPrecision(3)} to ${(low + span).toPrecision(3)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

function shown(question) {
  return question.modalities.map((modality, k) => {
    const tile = make("div", { class: "tile" });
    if (modality.picture) {
      tile.append(picture(`pictures/${question.row}/${encodeURIComponent(modality.name)}`, modality.name, true));
    } else if (modality.values) {
      tile.append(curve(modality.values, modality.name));
    } else {
      tile.append(make("span", { text: "this row lacks it" }));
    }
    const box = make("div", { class: "modality" }, make("header", {}, make("b", { text: modality.name })), tile);
    box.style.setProperty("--own", `var(--m${k % 6})`);
    return box;
  });
}

// The classes that begin with some letters, first the one that is them.
function fitting(typed) {
  const letters = typed.toLowerCase();
  const same = classes.filter((name) => name.toLowerCase() === letters);
  return [...same, ...classes.filter((name) => name.toLowerCase().startsWith(letters) && !same.includes(name))];
}

function buttons(question) {
  const typed = find("typed").value.trim();
  const list = many ? fitting(typed) : classes;
  return list.map((name, k) => {
    const pressed = many ? (k === 0 && typed ? "Enter" : "") : keys.get(name);
    const parts = pressed && pressed !== name ? [make("kbd", { text: pressed }), " "] : [];
    return make("button", { type: "button", "aria-pressed": String(question.label === name), onclick: () => then(() => give(name)) }, ...parts, name);
  });
}

function show(moved) {
  const count = answered();
  find("bar").value = count;
  find("done").textContent = `${count} of ${questions.length} answered`;
  for (const section of document.querySelectorAll("main > section:not(.end)")) section.hidden = ended;
  find("end").hidden = !ended;
  if (ended) {
    const never = questions.filter((question) => question.label === "?").length;
    find("summary").textContent = `${count - never} labels, ${never} never to be asked again, ${questions.length - count} left for later.`;
    find("what").textContent = following.what;
    find("command").textContent = following.command;
    find("end-title").focus();
    return;
  }
  const question = questions[at];
  find("question").textContent = `${at + 1} of ${questions.length}`;
  if (moved) {
    find("modalities").replaceChildren(...shown(question));
    find("hint").open = false;
    find("which").textContent = question.id + (question.group ? `, of ${question.group}` : "");
    const sure = question.probability === null ? "" : `, ${percent(question.probability)}`;
    find("predicted").textContent = question.predicted ? `The model takes it for ${question.predicted}${sure}.` : "";
  }
  find("said").textContent = question.label === "?" ? "It is never to be asked about again." : question.label ? `You said: ${question.label}` : question.given ? `The data says: ${question.given}` : "";
  const focused = [...find("classes").children].indexOf(document.activeElement);
  find("classes").replaceChildren(...buttons(question));
  find("classes").children[focused]?.focus();
  find("undo").disabled = !past.length;
  find("back").disabled = at === 0;
}

function go(place) {
  ended = place >= questions.length;
  at = Math.min(Math.max(place, 0), questions.length - 1);
  find("problem").hidden = true;
  show(true);
  if (!ended && many && !find("classes").contains(document.activeElement)) find("typed").focus();
}

async function send(place, label) {
  try {
    const reply = await fetch(`labels/${questions[place].row}`, { method: "POST", body: JSON.stringify({ label }) });
    const content = await reply.json();
    if (!reply.ok) throw new Error([content.error, content.hint].filter(Boolean).join("; "));
    questions[place].label = content.label;
    classes = content.classes;
    following = content.next;
    assignKeys();
    return true;
  } catch (error) {
    failures += 1;
    const away = error instanceof TypeError;
    find("problem").textContent = away ? "The server does not answer, so nothing was kept: is it still running?" : error.message;
    find("problem").hidden = false;
    return false;
  }
}

async function give(label) {
  if (ended) return;
  const place = at, before = questions[place].label;
  if (await send(place, label)) {
    past.push([place, before]);
    keepPast();
    go(place + 1);
  }
}

async function undo() {
  if (!past.length) return;
  const [place, before] = past[past.length - 1];
  if (await send(place, before)) {
    past.pop();
    keepPast();
    go(place);
  }
}

// Does something once all that was asked before is done, unless that fails.
function then(act) {
  const before = failures;
  waiting = waiting.then(() => (failures === before ? act() : undefined));
}

const typing = (event) => event.target instanceof HTMLInputElement;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Escape") {
    if (typing(event) && event.target.value) {
      event.target.value = "";
      show(false);
    } else then(undo);
  } else if (event.key === "ArrowLeft" && !(typing(event) && event.target.value)) then(() => go(ended ? questions.length - 1 : at - 1));
  else if (event.key === "ArrowRight" && !(typing(event) && event.target.value)) then(() => ended || go(at + 1));
  else if (typing(event)) {
    if (event.key !== "?" || event.target.value) return;
    then(() => give("?"));
  } else if (event.key === "?") then(() => give("?"));
  else if (event.key === "u") then(undo);
  else if (event.key === "s") then(() => ended || go(at + 1));
  else if (DIGITS.includes(event.key)) {
    const name = classes.find((one) => keys.get(one) === event.key);
    if (name === undefined) return;
    then(() => give(name));
  } else return;
  event.preventDefault();
});

find("typed").addEventListener("input", () => show(false));
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = find("typed").value.trim();
  const [chosen] = typed ? fitting(typed) : [];
  if (chosen !== undefined) {
    find("typed").value = ""; // at once: what is typed from now on is for the next row
    then(() => give(chosen));
  } else if (typed) {
    find("problem").textContent = `No class begins with ${typed}.`;
    find("problem").hidden = false;
  }
});
find("skip").addEventListener("click", () => then(() => go(at + 1)));
find("never").addEventListener("click", () => then(() => give("?")));
find("undo").addEventListener("click", () => then(undo));
find("back").addEventListener("click", () => then(() => go(at - 1)));
find("next").addEventListener("click", () => then(() => go(at + 1)));
find("again").addEventListener("click", () => go(0));
if (find("new")) {
  find("new").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = find("name").value.trim();
    find("name").value = "";
    if (name) then(() => give(name));
  });
}
find("search").hidden = !many;
for (const hint of document.querySelectorAll(many ? ".few" : ".many")) hint.hidden = true;
assignKeys();
go(questions.length && answered() === questions.length ? questions.length : at);
