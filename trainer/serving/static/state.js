// What the model is, and what is shown of it: one row, and which of its modalities are switched on.

export const facts = JSON.parse(document.getElementById("facts").textContent);
export const names = facts.modalities.map((m) => m.name);
export const title = (name) => facts.modalities[names.indexOf(name)].title;
export const listed = (given) => given.map(title).join(" + ");
export const colour = (name) => `var(--m${names.indexOf(name) % 6})`;
export const key = (given) => given.join("+");

// Either an example of the test part, or files and numbers that were given, by modality.
export const state = { example: null, given: {}, off: new Set(), reply: null, threshold: null };

export function there() {
  if (state.example) return state.example.given;
  return names.filter((name) => name in state.given);
}

export const switchedOn = () => there().filter((name) => !state.off.has(name));

export const answerOf = (given) => (state.reply && state.reply.answers[key(given)]) || null;

// What was measured on the test part with these modalities, or with others of their number.
export function measured(given) {
  return facts.subsets.find((s) => key(s.given) === key(given))
    || facts.subsets.find((s) => !s.given.length && s.size === given.length) || null;
}

export function snapshot() {
  return { example: state.example, given: { ...state.given }, off: new Set(state.off), reply: state.reply };
}

const listeners = [];
export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener());
