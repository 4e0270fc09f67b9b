// Asks the server about the row that is shown, and says what went wrong.

import { find, make } from "./page.js";
import { answerOf, changed, state, switchedOn } from "./state.js";

let turn = 0; // of the latest question; answers to earlier ones are dropped
const pictures = new WeakMap(); // of a file or of numbers that were given: the picture that the server made of it

export const pictureOf = (given) => pictures.get(given) || null;

// Asks; `otherwise` is what is shown again if the server refuses what was given.
export async function ask(otherwise = null) {
  const given = switchedOn(), thisTurn = ++turn;
  problem(null);
  waiting(given.length > 0);
  changed();
  if (!given.length) return;
  try {
    const content = await answer(given);
    if (thisTurn !== turn) return;
    state.reply = content;
    for (const [name, value] of Object.entries(state.given)) {
      if (content.images[name]) pictures.set(value, content.images[name]);
    }
  } catch (error) {
    if (thisTurn !== turn) return;
    if (error.again) problem(error.message, () => ask(otherwise));
    else {
      problem(error.message);
      if (otherwise) Object.assign(state, otherwise);
    }
  }
  waiting(false);
  changed();
}

async function answer(given) {
  const query = "?given=" + encodeURIComponent(given.join(","));
  const [address, body] = state.example ? [`examples/${state.example.row}`, null] : ["explore", form()];
  const reply = await fetch(address + query, { method: "POST", body })
    .catch(() => { throw failure("The server does not answer. It may have been stopped.", true); });
  if (reply.status === 401) throw failure("The server asks for its token: reload this page.", false);
  const content = await reply.json().catch(() => null);
  if (reply.ok && content) return content;
  const hint = content && content.hint ? ` Hint: ${content.hint}.` : "";
  const sentence = content && content.error ? `${content.error}.${hint}` : `The server failed with status ${reply.status}.`;
  throw failure(sentence, reply.status === 408 || reply.status >= 500);
}

const failure = (message, again) => Object.assign(new Error(message), { again });

function form() {
  const body = new FormData();
  for (const [name, value] of Object.entries(state.given)) {
    if (value instanceof File) body.append(name, value, value.name);
    else body.append(name, JSON.stringify(value));
  }
  return body;
}

export const isWaiting = () => document.body.classList.contains("busy");

function waiting(yes) {
  document.body.classList.toggle("busy", yes);
  find("answer-section").setAttribute("aria-busy", String(yes));
}

// Says what is wrong, with a button where trying again may help; null takes it away.
export function problem(text, again = null) {
  find("problem").hidden = !text;
  find("problem").replaceChildren(...(text ? [text] : []),
    ...(again ? [" ", make("button", { type: "button", text: "try again", onclick: again })] : []));
}

// What is switched on has its answer already, unless there are many modalities.
export function switched() {
  const given = switchedOn(), known = answerOf(given);
  if (given.length && !(known && "nearest" in known)) ask();
  else changed();
}
