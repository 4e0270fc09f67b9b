"use strict";
// The page of `mmssl serve`: what is given on one side, what the model says on the other, again at each change.

const facts = JSON.parse(document.getElementById("facts").textContent);
const FEW_CLASSES = 10;
const find = (id) => document.getElementById(id);
const names = facts.modalities.map((m) => m.name);
const title = (name) => facts.modalities[names.indexOf(name)].title;
const listed = (given) => given.map(title).join(" + ");
const percent = (share) => (100 * share).toFixed(1) + " %";

// The one thing that is shown: an example of the test part, or files and numbers that were given.
const state = { example: null, given: {}, off: new Set(), reply: null, all: false, threshold: null, from: 0, turn: 0 };

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") element.className = value;
    else if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// A name that may be broken after each underscore.
function breakable(text) {
  const parts = text.split(/(?<=[_\-.\/])/);
  return parts.flatMap((part, k) => (k ? [document.createElement("wbr"), part] : [part]));
}

const own = (name) => `var(--m${names.indexOf(name) % 6})`;

// --- asking ---

function there() {
  if (state.example) return state.example.given;
  return names.filter((name) => name in state.given);
}

const switchedOn = () => there().filter((name) => !state.off.has(name));

async function ask() {
  const given = switchedOn();
  problem(null);
  if (!given.length) return show();
  const turn = ++state.turn;
  document.body.classList.add("busy");
  try {
    const query = "?given=" + encodeURIComponent(given.join(","));
    const reply = await (state.example
      ? fetch(`examples/${state.example.row}${query}`, { method: "POST" })
      : fetch("explore" + query, { method: "POST", body: form() }));
    const content = await reply.json().catch(() => ({ error: `the server said ${reply.status}` }));
    if (turn !== state.turn) return; // something else has been asked meanwhile
    if (!reply.ok) throw new Error(content.error + (content.hint ? ` (${content.hint})` : ""));
    state.reply = content;
    show();
  } catch (error) {
    if (turn !== state.turn) return;
    state.reply = null;
    problem(error instanceof TypeError ? "the server cannot be reached" : error.message);
    show();
  } finally {
    if (turn === state.turn) document.body.classList.remove("busy");
  }
}

function form() {
  const body = new FormData();
  for (const [name, value] of Object.entries(state.given)) {
    if (value instanceof File) body.append(name, value, value.name);
    else body.append(name, JSON.stringify(value));
  }
  return body;
}

function problem(text) {
  find("problem").textContent = text || "";
  find("problem").hidden = !text;
}

// What is switched on has its answer already, unless there are many modalities.
function switched() {
  const given = switchedOn();
  const known = state.reply && state.reply.answers[given.join("+")];
  if (given.length && !(known && "nearest" in known)) ask();
  else show();
}

// --- giving ---

function pickExample(example) {
  state.example = example;
  state.given = {};
  state.off.clear();
  state.reply = null;
  ask();
}

function give(name, value) {
  if (value instanceof File && value.size > facts.limits.body) {
    return problem(`${value.name} has more than ${Math.floor(facts.limits.body / 2 ** 20)} MB`);
  }
  if (state.example) state.given = {};
  state.example = null;
  state.off.delete(name);
  state.reply = null;
  if (value === null) delete state.given[name];
  else state.given[name] = value;
  ask();
}

function numbers(text, modality) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const rows = lines.map((line) => line.split(/[\s,;]+/).filter(Boolean).map(Number));
  const row = (rows.length > 1 && rows.some((r) => r.every(Number.isFinite)))
    ? (rows.every((r) => r.every(Number.isFinite)) && rows.flat().length === modality.width
      ? rows.flat() : rows.find((r) => r.every(Number.isFinite)))
    : rows.flat();
  if (!row || !row.length || !row.every(Number.isFinite)) return problem(`${modality.title}: these are not numbers`);
  if (row.length !== modality.width) {
    return problem(`${modality.title} takes ${modality.width} numbers, not ${row.length}`);
  }
  give(modality.name, row);
}

function dropped(event, modality) {
  event.preventDefault();
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if (files.length > 1 && files.length === facts.modalities.filter((m) => m.picture).length) return pair(files);
  received(files[0], modality);
}

// Several files at once: each goes where its name says, the others in order.
function pair(files) {
  const open = facts.modalities.filter((m) => m.picture);
  const placed = {};
  for (const file of files) {
    const match = open.find((m) => !(m.name in placed) && file.name.toLowerCase().includes(m.title.toLowerCase()));
    if (match) placed[match.name] = file;
  }
  for (const file of files.filter((f) => !Object.values(placed).includes(f))) {
    const next = open.find((m) => !(m.name in placed));
    if (next) placed[next.name] = file;
  }
  state.given = {};
  state.example = null;
  state.off.clear();
  state.reply = null;
  Object.assign(state.given, placed);
  ask();
}

async function received(file, modality) {
  if (modality.picture) give(modality.name, file);
  else numbers(await file.text(), modality);
}

// --- showing ---

function buildModalities() {
  for (const modality of facts.modalities) {
    const id = `m-${names.indexOf(modality.name)}`;
    const toggle = make("button", { type: "button", class: "switch", role: "switch", id: `${id}-switch`,
      "aria-label": `${modality.title} in use`, onclick: () => {
        if (state.off.has(modality.name)) state.off.delete(modality.name);
        else state.off.add(modality.name);
        switched();
      } }, make("span", { "aria-hidden": "true" }), make("i"));
    const file = make("input", { type: "file", id: `${id}-file`,
      accept: modality.picture ? "image/*,.npy,.tif,.tiff" : ".csv,.txt,text/*",
      onchange: (event) => { if (event.target.files[0]) received(event.target.files[0], modality); event.target.value = ""; } });
    const chooser = make("label", { for: `${id}-file` }, file,
      make("span", { text: modality.picture ? `choose ${modality.title} picture` : "choose CSV" }));
    const remove = make("button", { type: "button", class: "plain", id: `${id}-remove`, text: "remove",
      "aria-label": `remove ${modality.title}`, onclick: () => give(modality.name, null) });
    const box = make("div", { class: "modality", id, role: "group", "aria-label": modality.title },
      make("header", {}, make("b", { text: modality.title }), toggle),
      make("div", { class: "tile", id: `${id}-tile` }),
      make("div", { class: "give" }, chooser, remove));
    if (!modality.picture) {
      const area = make("textarea", { "aria-label": `${modality.title}: ${modality.width} numbers`, spellcheck: "false",
        placeholder: `${modality.width} numbers, separated by commas or spaces` });
      box.append(make("details", {}, make("summary", { text: "paste numbers" }), area,
        make("button", { type: "button", text: "use these", onclick: () => numbers(area.value, modality) })));
    }
    box.style.setProperty("--own", own(modality.name));
    box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => { box.classList.remove("over"); dropped(event, modality); });
    find("modalities").append(box);
  }
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
}

function picture(source, alt, shape) {
  return make("img", { src: source, alt, class: shape ? "pixels" : "" });
}

function showModalities() {
  const given = there();
  for (const modality of facts.modalities) {
    const id = `m-${names.indexOf(modality.name)}`, has = given.includes(modality.name), off = state.off.has(modality.name);
    const toggle = find(`${id}-switch`), tile = find(`${id}-tile`);
    toggle.disabled = !has;
    toggle.setAttribute("aria-checked", String(has && !off));
    toggle.firstChild.textContent = has ? (off ? "off" : "on") : "";
    find(`${id}-remove`).hidden = !(modality.name in state.given);
    tile.replaceChildren();
    tile.classList.toggle("off", off);
    const image = state.reply && state.reply.images[modality.name];
    if (has && image) tile.append(picture(image, `${modality.title} of ${state.reply.id}`, modality.shape));
    else if (has) tile.append(make("span", { text: `${modality.width} values` }));
    else tile.append(make("span", { text: modality.picture ? "drop a picture here" : "nothing given" }));
    if (has && off) tile.append(make("span", { class: "covered", text: "switched off" }));
  }
}

function show() {
  showModalities();
  for (const button of document.querySelectorAll(".example")) {
    button.setAttribute("aria-pressed", String(Boolean(state.example) && Number(button.dataset.row) === state.example.row));
  }
  const given = switchedOn();
  const answer = state.reply && state.reply.answers[given.join("+")];
  find("nothing").hidden = Boolean(answer);
  find("said").hidden = !answer;
  find("behind").hidden = !answer;
  if (!answer) {
    if (there().length && !given.length) {
      find("nothing").firstElementChild.textContent = "Everything is switched off: it knows nothing.";
      find("live").textContent = "Everything is switched off.";
    }
    showCoverage(null);
    return;
  }
  showVerdict(answer, given);
  showClasses(answer, given);
  showUnlike(answer);
  showBehind(answer, given);
  showCoverage(given);
}

function entry(given) {
  const key = given.join("+");
  return facts.subsets.find((s) => s.given.join("+") === key)
    || facts.subsets.find((s) => !s.given.length && s.size === given.length) || null;
}

function abstains(answer, given) {
  if (state.threshold !== null) return answer.row.probability < state.threshold;
  return answer.row.abstained;
}

function showVerdict(answer, given) {
  const row = answer.row, right = find("right");
  find("label").textContent = row.label;
  find("probability").textContent = percent(row.probability);
  right.hidden = !state.reply.label;
  if (state.reply.label) {
    const hit = state.reply.label === row.label;
    right.textContent = hit ? "✓ right" : `✗ it is ${state.reply.label}`;
    right.className = "change " + (hit ? "above" : "below");
  }
  const silent = abstains(answer, given), stance = find("stance"), found = entry(given);
  const least = state.threshold !== null ? state.threshold : answer.threshold;
  stance.classList.toggle("abstains", silent);
  if (silent) {
    stance.textContent = least === null ? `With ${listed(given)} it never answers: no threshold reaches the accuracy that was asked for.`
      : `It would rather not answer: below ${percent(least)}.`;
  } else {
    stance.textContent = least ? `It answers: at least ${percent(least)}. ` : "";
    stance.textContent += `With ${listed(given)}` + (found && found.accuracy !== null ? `, right on ${percent(found.accuracy)} of test rows.` : ".");
  }
  find("live").textContent = `${listed(given)}: ${row.label}, ${percent(row.probability)}${silent ? ", it would rather not answer" : ""}.`;
}

function showClasses(answer, given) {
  const single = there();
  const columns = [{ title: given.length > 1 ? "together" : `with ${listed(given)}`, values: answer.probabilities, colour: "var(--joint)" }];
  if (there().length > 1) {
    for (const name of single) {
      const alone = state.reply.answers[name];
      columns.push({ title: `${title(name)} alone`, values: alone.probabilities, colour: own(name), off: state.off.has(name) });
    }
  }
  const head = make("tr", {}, make("th", { scope: "col", text: "class" }));
  for (const column of columns) {
    const cell = make("th", { scope: "col", text: column.title + (column.off ? " (off)" : "") });
    cell.style.setProperty("--own", column.colour);
    head.append(cell);
  }
  const order = facts.classes.map((_, k) => k).sort((a, b) => answer.probabilities[b] - answer.probabilities[a] || a - b);
  const shown = state.all ? order : order.slice(0, FEW_CLASSES);
  const rows = shown.map((k, place) => {
    const row = make("tr", { class: place ? "" : "best" }, make("th", { scope: "row" }, ...breakable(facts.classes[k])));
    for (const column of columns) {
      const bar = make("i");
      bar.style.width = `${100 * column.values[k]}%`;
      bar.style.setProperty("--own", column.off ? "var(--quiet)" : column.colour);
      row.append(make("td", { class: column.off ? "off" : "" }, percent(column.values[k]),
        make("span", { class: "meter", "aria-hidden": "true" }, bar)));
    }
    return row;
  });
  find("classes").tHead.replaceChildren(head);
  find("classes").tBodies[0].replaceChildren(...rows);
  find("all").hidden = facts.classes.length <= FEW_CLASSES;
  find("all").textContent = state.all ? "only the most probable" : `all ${facts.classes.length} classes`;
}

function showUnlike(answer) {
  const value = answer.row.unlikeness;
  find("gauge").parentElement.hidden = value === null;
  if (value === null) {
    find("unlike").textContent = "Not known: too few rows to compare with.";
    return;
  }
  find("gauge").style.left = `${value}%`;
  const words = value >= 95 ? "This is stranger than nearly everything it knows: be careful with the answer."
    : value >= 80 ? "Somewhat unusual." : "Nothing unusual.";
  find("unlike").textContent = `More unlike the training rows than ${value.toFixed(1)} % of known rows. ${words}`;
}

function showBehind(answer, given) {
  const missing = names.filter((name) => !given.includes(name));
  const imagined = Object.entries(answer.imagined || {});
  const nearest = answer.nearest || [];
  find("behind").hidden = !imagined.length && !nearest.length;
  find("behind-title").textContent = missing.length
    ? `What ${listed(missing)} would have seen` : "What it resembles";
  find("imagined").replaceChildren(...imagined.map(([name, source]) => {
    const figures = [make("figure", {}, make("div", { class: "tile" }, picture(source, `${title(name)} as the model imagines it`, true)),
      make("figcaption", { text: `${title(name)}, imagined from ${listed(given)}` }))];
    const truth = state.reply.images[name];
    if (truth) {
      figures.push(make("figure", {}, make("div", { class: "tile" }, picture(truth, `${title(name)} as it was`, true)),
        make("figcaption", { text: `${title(name)}, as it was` })));
    }
    return make("div", { class: "imagined" }, ...figures);
  }));
  find("nearest-block").hidden = !nearest.length;
  find("nearest-title").textContent = "The nearest training rows";
  find("nearest-how").textContent = `Seen with ${listed(given)}, these lie nearest in the model’s latent space`
    + (missing.length === 1 ? `, among rows that have ${listed(missing)}.` : ".");
  find("nearest").replaceChildren(...nearest.map((row) => {
    const shown = facts.modalities.filter((m) => m.shown && row.there.includes(m.name));
    const tiles = shown.map((m) => {
      const image = picture(`pictures/train/${row.row}/${encodeURIComponent(m.name)}`, `${m.title} of ${row.id}`, m.shape);
      image.loading = "lazy";
      const tile = make("div", { class: "tile" + (missing.includes(m.name) ? " missing" : "") }, image);
      tile.style.setProperty("--own", own(m.name));
      return tile;
    });
    const label = row.label === null ? "class not known" : row.label;
    const told = row.label === null || row.given_in_training ? "" : ", its label was not given in training";
    return make("li", {}, make("figure", {}, make("div", { class: "pair" }, ...tiles),
      make("figcaption", {}, make("strong", {}, ...breakable(label)), make("br"), make("span", { class: "quiet", text: row.id + told }))));
  }));
}

// --- abstaining ---

const positions = () => {
  const curve = (facts.subsets.find((s) => s.curve.length) || { curve: [] }).curve.map((point) => point[0]);
  return curve;
};

function buildThreshold() {
  const all = positions();
  find("abstain").hidden = !all.length;
  find("abstain-how").textContent = all.length
    ? "Measured on the test part, for each choice of what is given. " + (facts.target !== null
      ? `The model’s own thresholds were chosen so that ${percent(facts.target)} of the answers are right.` : "")
    : "Nothing was measured of this model on a test part, so it always answers. Bundles of earlier versions lack these numbers: export the run again.";
  if (!all.length) return;
  const slider = find("threshold");
  slider.max = all.length - 1;
  slider.value = 0;
  slider.addEventListener("input", () => { state.threshold = all[Number(slider.value)]; show(); });
  find("own").addEventListener("click", () => { state.threshold = null; show(); });
}

function showCoverage(given) {
  const all = positions();
  if (!all.length) return;
  const slider = find("threshold"), key = given && given.join("+");
  const found = given && entry(given);
  const least = state.threshold !== null ? state.threshold : found && found.threshold;
  if (state.threshold === null && least !== null && least !== undefined) {
    const nearest = all.reduce((best, value, k) => (Math.abs(value - least) < Math.abs(all[best] - least) ? k : best), 0);
    slider.value = nearest;
  }
  const text = state.threshold !== null ? percent(state.threshold) : "the model’s own threshold";
  find("threshold-value").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  find("own").hidden = state.threshold === null;
  const rows = facts.subsets.filter((s) => s.curve.length).map((subset) => {
    const at = state.threshold !== null ? subset.curve.find((p) => p[0] === state.threshold) : ownPoint(subset);
    const name = subset.given.length ? listed(subset.given) : `${subset.size} others`;
    const now = key !== null && subset.given.join("+") === key;
    return make("tr", { class: now ? "now" : "" }, make("th", { scope: "row", text: name + (now ? " (now)" : "") }),
      make("td", { text: String(subset.rows) }),
      make("td", { text: at[1] === null ? "–" : percent(at[1]) }),
      make("td", { text: at[2] === null || at[2] === undefined ? "–" : percent(at[2]) }));
  });
  find("coverage").tBodies[0].replaceChildren(...rows);
}

// What the model's own threshold gives: that of the curve which is nearest, or nothing where it always abstains.
function ownPoint(subset) {
  if (subset.abstains) return [null, 0, null];
  if (subset.own) return [subset.threshold, ...subset.own];
  return subset.curve[0];
}

// --- examples ---

async function loadExamples() {
  const reply = await fetch(`examples?from=${state.from}`);
  if (!reply.ok) return;
  const { examples, total } = await reply.json();
  const shown = facts.modalities.filter((m) => m.shown);
  find("examples").replaceChildren(...examples.map((example) => {
    const images = shown.filter((m) => example.given.includes(m.name)).slice(0, 2).map((m) => {
      const image = picture(`pictures/test/${example.row}/${encodeURIComponent(m.name)}`, "", m.shape);
      image.loading = "lazy";
      return image;
    });
    const lacking = names.filter((name) => !example.given.includes(name));
    const label = example.label === null ? "class not known" : example.label;
    return make("button", { type: "button", class: "example", "aria-pressed": "false", "data-row": example.row, title: example.id,
      "aria-label": `${label}, ${example.id}` + (lacking.length ? `, without ${listed(lacking)}` : ""),
      onclick: () => pickExample(example) },
      ...(images.length ? [make("span", { class: "pair" }, ...images)] : []), make("span", { text: label }));
  }));
  state.from = state.from + examples.length >= total ? 0 : state.from + examples.length;
  find("more").hidden = total <= examples.length;
}

buildModalities();
buildThreshold();
find("all").addEventListener("click", () => { state.all = !state.all; show(); });
if (facts.examples) {
  find("more").addEventListener("click", loadExamples);
  loadExamples();
}
show();
