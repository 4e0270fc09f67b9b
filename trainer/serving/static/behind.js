// What lies behind an answer: what missing modalities would have been, and the nearest training rows.

import { breakable, find, make, picture } from "./page.js";
import { colour, facts, listed, names, state, title } from "./state.js";

export function showBehind(answer, given) {
  const missing = names.filter((name) => !given.includes(name));
  const imagined = Object.entries(answer.imagined || {}), nearest = answer.nearest || [];
  find("behind").hidden = !imagined.length && !nearest.length;
  find("behind-title").textContent = missing.length ? `What ${listed(missing)} would have seen` : "What it resembles";
  find("imagined").replaceChildren(...imagined.map(([name, source]) => pair(name, source, given)));
  find("nearest-block").hidden = !nearest.length;
  find("nearest-how").textContent = `Seen with ${listed(given)}, these lie nearest in the model’s latent space`
    + (missing.length === 1 ? `, among rows that have ${listed(missing)}.` : ".");
  find("nearest").replaceChildren(...nearest.map((row) => neighbour(row, missing)));
}

// What the model imagines beside what there was, where that is known.
function pair(name, source, given) {
  const truth = state.reply.images[name];
  const figure = (image, alt, words) => make("figure", {}, make("div", { class: "tile" }, picture(image, alt, true)),
    make("figcaption", { text: words }));
  const figures = [figure(source, `${title(name)} as the model imagines it`, `${title(name)}, imagined from ${listed(given)}`)];
  if (truth) figures.push(figure(truth, `${title(name)} as it was`, `${title(name)}, as it was`));
  return make("div", { class: "imagined" }, ...figures);
}

function neighbour(row, missing) {
  const tiles = facts.modalities.filter((m) => m.shown && row.there.includes(m.name)).map((m) => {
    const image = picture(`pictures/train/${row.row}/${encodeURIComponent(m.name)}`, `${m.title} of ${row.id}`, m.shape);
    image.loading = "lazy";
    const tile = make("div", { class: "tile" + (missing.includes(m.name) ? " missing" : "") }, image);
    tile.style.setProperty("--own", colour(m.name));
    return tile;
  });
  const label = row.label === null ? "class not known" : row.label;
  const told = row.label === null || row.given_in_training ? "" : "; its class was not given in training";
  return make("li", {}, make("figure", {}, ...(tiles.length ? [make("div", { class: "pair" }, ...tiles)] : []),
    make("figcaption", {}, make("strong", {}, ...breakable(label)), make("br"),
      make("span", { class: "quiet" }, ...breakable(row.id), told))));
}
