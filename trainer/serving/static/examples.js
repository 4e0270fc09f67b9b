// Rows of the test part to pick.

import { problem } from "./asking.js";
import { pickExample } from "./giving.js";
import { breakable, find, make, picture } from "./page.js";
import { changed, facts, listed, names, state } from "./state.js";

const PICTURES = 2; // of an example, so that it stays small
let from = 0;

export async function loadExamples() {
  const reply = await fetch(`examples?from=${from}`).catch(() => null);
  if (!reply || !reply.ok) return problem("The server does not answer. It may have been stopped.", loadExamples);
  const { examples, total } = await reply.json();
  find("examples").replaceChildren(...examples.map(button));
  find("examples").scrollTo(0, 0);
  from = from + examples.length >= total ? 0 : from + examples.length;
  find("more").hidden = total <= examples.length;
  changed();
}

function button(example) {
  const shown = facts.modalities.filter((m) => m.shown && example.given.includes(m.name)).slice(0, PICTURES);
  const images = shown.map((m) => {
    const image = picture(`pictures/test/${example.row}/${encodeURIComponent(m.name)}`, "", m.shape);
    image.loading = "lazy";
    return image;
  });
  const lacking = names.filter((name) => !example.given.includes(name));
  const label = example.label === null ? "class not known" : example.label;
  return make("button", { type: "button", class: "example", "aria-pressed": "false", "data-row": example.row, title: example.id,
    "aria-label": `${label}, ${example.id}` + (lacking.length ? `, without ${listed(lacking)}` : ""),
    onclick: () => pickExample(example) },
    ...(images.length ? [make("span", { class: "pair" }, ...images)] : []), make("span", {}, ...breakable(label)));
}

export function showExamples() {
  for (const button of document.querySelectorAll(".example")) {
    button.setAttribute("aria-pressed", String(Boolean(state.example) && Number(button.dataset.row) === state.example.row));
  }
}
