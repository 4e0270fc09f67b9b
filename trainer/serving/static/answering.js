// What the model says of the row: its answer, the probability of each class, and how unlike the training data it is.

import { breakable, find, make, percent } from "./page.js";
import { answerOf, colour, facts, listed, measured, state, there, title } from "./state.js";

const FEW_CLASSES = 10;
const NARROW = 4; // columns of probabilities, from which on they are set more tightly
const empty = find("nothing").firstElementChild.textContent;
let all = false;

export function buildAnswer(again) {
  find("all").addEventListener("click", () => { all = !all; again(); });
}

export function showNothing(given) {
  const off = there().length > 0 && !given.length;
  const text = off ? "Everything is switched off, so there is nothing to answer from." : empty;
  find("nothing").firstElementChild.textContent = text;
  find("live").textContent = off ? text : "";
}

export function showAnswer(answer, given) {
  showVerdict(answer, given);
  showClasses(answer, given);
  showUnlike(answer);
}

function abstains(answer) {
  if (state.threshold !== null) return answer.row.probability < state.threshold;
  return answer.row.abstained;
}

function showVerdict(answer, given) {
  const row = answer.row, right = find("right"), silent = abstains(answer);
  find("label").replaceChildren(...breakable(row.label));
  find("probability").textContent = percent(row.probability);
  right.hidden = !state.reply.label;
  if (state.reply.label) {
    const hit = state.reply.label === row.label;
    right.textContent = hit ? "✓ right" : `✗ it is ${state.reply.label}`;
    right.className = "change " + (hit ? "above" : "below");
  }
  find("stance").classList.toggle("abstains", silent);
  find("stance").textContent = stance(answer, given, silent);
  const whole = given.length < there().length && answerOf(there());
  find("whole").hidden = !whole;
  if (whole) {
    find("whole").textContent = `With ${listed(there())} it says ${whole.row.label}, ${percent(whole.row.probability)}.`;
  }
  const refusing = silent ? ", it would rather not answer" : "";
  find("live").textContent = `${listed(given)}: ${row.label}, ${percent(row.probability)}${refusing}.`;
}

function stance(answer, given, silent) {
  const least = state.threshold !== null ? state.threshold : answer.threshold;
  if (silent && least === null) {
    return `With ${listed(given)} it never answers: no threshold reaches the accuracy that was asked for.`;
  }
  if (silent) return `It would rather not answer: that is below ${percent(least)}.`;
  const found = measured(given);
  const right = found && found.accuracy !== null ? `, right on ${percent(found.accuracy)} of test rows` : "";
  return (least ? `It answers: that is at least ${percent(least)}. ` : "") + `With ${listed(given)}${right}.`;
}

// The answer's column first, unless it is that of a single modality, which has a column anyway.
function columnsOf(answer, given) {
  const single = there(), short = single.length > NARROW;
  const columns = single.map((name) => ({
    title: single.length === 1 || short ? title(name) : `${title(name)} alone`, colour: colour(name),
    values: state.reply.answers[name].probabilities, off: state.off.has(name), used: given.length === 1 && given[0] === name,
  }));
  if (given.length === 1) return columns;
  return [{ title: "together", colour: "var(--joint)", values: answer.probabilities, off: false, used: true }, ...columns];
}

function showClasses(answer, given) {
  const columns = columnsOf(answer, given);
  const head = make("tr", {}, make("th", { scope: "col", text: "class" }), ...columns.map((column) => {
    const text = column.title + (column.off ? " (off)" : "");
    const cell = make("th", { scope: "col", text, class: column.used ? "used" : "" });
    cell.style.setProperty("--own", column.colour);
    return cell;
  }));
  const order = facts.classes.map((_, k) => k).sort((a, b) => answer.probabilities[b] - answer.probabilities[a] || a - b);
  const rows = (all ? order : order.slice(0, FEW_CLASSES)).map((k, place) =>
    make("tr", { class: place ? "" : "best" }, make("th", { scope: "row" }, ...breakable(facts.classes[k])),
      ...columns.map((column) => share(column, k))));
  find("classes").classList.toggle("narrow", columns.length > NARROW);
  find("classes").tHead.replaceChildren(head);
  find("classes").tBodies[0].replaceChildren(...rows);
  find("all").hidden = facts.classes.length <= FEW_CLASSES;
  find("all").textContent = all ? "only the most probable" : `all ${facts.classes.length} classes`;
}

function share(column, k) {
  const bar = make("i"), value = column.values[k];
  bar.style.width = `${100 * value}%`;
  bar.style.setProperty("--own", column.off ? "var(--quiet)" : column.colour);
  return make("td", { class: [column.off && "off", column.used && "used"].filter(Boolean).join(" ") },
    make("data", { value, text: percent(value) }), make("span", { class: "meter", "aria-hidden": "true" }, bar));
}

function showUnlike(answer) {
  const value = answer.row.unlikeness;
  find("gauge").parentElement.hidden = value === null;
  if (value === null) {
    find("unlike").textContent = "Not known: too few rows to compare with.";
    return;
  }
  find("gauge").style.left = `${value}%`;
  const words = value >= 95 ? "It is stranger than nearly everything that the model knows: be careful with the answer."
    : value >= 80 ? "Somewhat unusual." : "Nothing unusual.";
  find("unlike").textContent = `More unlike the training rows than ${value.toFixed(1)} % of known rows. ${words}`;
}
