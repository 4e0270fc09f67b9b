// What the model is given: a box per modality with its switch, its picture, and ways to give another.

import { ask, isWaiting, pictureOf, problem, switched } from "./asking.js";
import { find, make, picture } from "./page.js";
import { colour, facts, names, snapshot, state, switchedOn, there } from "./state.js";

const boxId = (name) => `m-${names.indexOf(name)}`;
const taken = facts.modalities.filter((m) => m.picture);

export function pickExample(example) {
  const before = snapshot();
  Object.assign(state, { example, given: {}, reply: null });
  if (!switchedOn().length) state.off.clear();
  ask(before);
}

// Puts files or numbers in the place of what was there; null takes one away.
function give(values) {
  const large = Object.values(values).find((value) => value instanceof File && value.size > facts.limits.body);
  if (large) return problem(`${large.name} has more than ${Math.floor(facts.limits.body / 2 ** 20)} MB.`);
  const before = snapshot();
  Object.assign(state, { example: null, given: state.example ? {} : { ...state.given }, reply: null });
  for (const [name, value] of Object.entries(values)) {
    state.off.delete(name);
    if (value === null) delete state.given[name];
    else state.given[name] = value;
  }
  ask(before);
}

// --- files and numbers ---

function numbers(text, modality) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const rows = lines.map((line) => line.split(/[\s,;]+/).filter(Boolean).map(Number));
  const complete = rows.filter((row) => row.every(Number.isFinite));
  // One row a line below a line of names, or all of the numbers on lines of any length.
  const row = rows.flat().length === modality.width ? rows.flat() : complete.length ? complete[0] : rows.flat();
  if (!row.length || !row.every(Number.isFinite)) return problem(`${modality.title}: these are not numbers.`);
  if (row.length !== modality.width) {
    return problem(`${modality.title} takes ${modality.width} numbers, and these are ${row.length}.`);
  }
  give({ [modality.name]: row });
}

async function received(file, modality) {
  if (modality.picture) give({ [modality.name]: file });
  else if (file.size > facts.limits.body) give({ [modality.name]: file }); // which says so
  else numbers(await file.text(), modality);
}

// Several pictures at once, or one beside the boxes: each goes where its name says, the others in order.
function placed(files) {
  if (!taken.length) return problem("This model takes no pictures: pick an example, or give numbers.");
  if (files.length > taken.length) {
    return problem(`These are ${files.length} files, and a row has ${taken.map((m) => m.title).join(" + ")}.`);
  }
  const values = {};
  for (const file of files) {
    const match = taken.find((m) => !(m.name in values) && file.name.toLowerCase().includes(m.title.toLowerCase()));
    if (match) values[match.name] = file;
  }
  for (const file of files.filter((f) => !Object.values(values).includes(f))) {
    const free = taken.filter((m) => !(m.name in values));
    values[(free.find((m) => !(m.name in state.given)) || free[0]).name] = file;
  }
  if (files.length > 1) state.given = {};
  give(values);
}

function dropped(event, modality) {
  event.preventDefault();
  event.stopPropagation();
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if (modality && files.length === 1) received(files[0], modality);
  else placed(files);
}

// --- the boxes ---

function chooser(modality, id) {
  const file = make("input", { type: "file", id: `${id}-file`,
    accept: modality.picture ? "image/*,.npy,.tif,.tiff" : ".csv,.txt,text/*",
    onchange: (event) => {
      const [chosen] = event.target.files;
      event.target.value = "";
      if (chosen) received(chosen, modality);
    } });
  return make("label", { for: `${id}-file` }, file, make("span", {},
    modality.picture ? "choose picture" : "choose CSV", make("span", { class: "unseen", text: ` for ${modality.title}` })));
}

function pasting(modality) {
  const area = make("textarea", { "aria-label": `${modality.title}: ${modality.width} numbers`, spellcheck: "false",
    placeholder: `${modality.width} numbers, separated by commas or spaces` });
  const summary = make("summary", {}, "paste numbers", make("span", { class: "unseen", text: ` for ${modality.title}` }));
  return make("details", {}, summary, area,
    make("button", { type: "button", text: "use these", onclick: () => numbers(area.value, modality) }));
}

export function buildModalities() {
  for (const modality of facts.modalities) {
    const id = boxId(modality.name);
    const toggle = make("button", { type: "button", class: "switch", role: "switch", id: `${id}-switch`,
      "aria-label": `${modality.title} in use`, onclick: () => {
        if (!state.off.delete(modality.name)) state.off.add(modality.name);
        switched();
      } }, make("span", { "aria-hidden": "true" }), make("i"));
    const remove = make("button", { type: "button", class: "plain", id: `${id}-remove`, text: "remove",
      "aria-label": `remove ${modality.title}`, onclick: () => {
        find(`${id}-file`).focus(); // this button goes
        give({ [modality.name]: null });
      } });
    const box = make("div", { class: "modality", id, role: "group", "aria-label": modality.title },
      make("header", {}, make("b", { text: modality.title }), toggle),
      make("div", { class: "tile" + (modality.shown ? "" : " values"), id: `${id}-tile` }),
      make("div", { class: "give" }, chooser(modality, id), remove));
    if (!modality.picture) box.append(pasting(modality));
    box.style.setProperty("--own", colour(modality.name));
    box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => { box.classList.remove("over"); dropped(event, modality); });
    find("modalities").append(box);
  }
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => dropped(event, null));
}

function image(modality) {
  if (state.example) return state.reply && state.reply.images[modality.name];
  return pictureOf(state.given[modality.name]);
}

function content(modality, has) {
  if (!has) return make("span", { text: modality.picture ? "drop a picture here" : "nothing given" });
  const source = image(modality), given = state.given[modality.name];
  if (source) return picture(source, `${modality.title} of the row`, modality.shape);
  if (!state.reply && isWaiting()) return make("span", { text: "…" });
  return make("span", { text: given instanceof File ? given.name : `${modality.width} values` });
}

export function showModalities() {
  const given = there();
  for (const modality of facts.modalities) {
    const id = boxId(modality.name), has = given.includes(modality.name), off = state.off.has(modality.name);
    const toggle = find(`${id}-switch`), tile = find(`${id}-tile`);
    toggle.disabled = !has;
    toggle.setAttribute("aria-checked", String(has && !off));
    toggle.firstChild.textContent = has ? (off ? "off" : "on") : "";
    find(`${id}-remove`).hidden = !(modality.name in state.given);
    tile.classList.toggle("off", has && off);
    tile.replaceChildren(content(modality, has));
    if (has && off && modality.shown) tile.append(make("span", { class: "covered", text: "switched off" }));
  }
}
