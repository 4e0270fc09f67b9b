// When the model should rather say nothing: a threshold to move, and what it would have given on the test part.

import { find, make, percent } from "./page.js";
import { changed, facts, key, listed, measured, names, state } from "./state.js";

const curves = facts.subsets.filter((s) => s.curve.length);
const positions = curves.length ? curves[0].curve.map((point) => point[0]) : [];

export function buildThreshold() {
  find("abstain").hidden = !positions.length;
  find("abstain-how").textContent = positions.length
    ? "Measured on the test part, for each choice of what is given. " + (facts.target !== null
      ? `The model’s own thresholds were chosen so that ${percent(facts.target)} of the answers are right.` : "")
    : "Nothing was measured of this model on a test part, so it always answers. "
      + "Bundles of earlier versions lack these numbers: export the run again.";
  if (!positions.length) return;
  const slider = find("threshold");
  slider.max = positions.length - 1;
  slider.addEventListener("input", () => { state.threshold = positions[Number(slider.value)]; changed(); });
  find("own").addEventListener("click", () => { state.threshold = null; changed(); slider.focus(); });
}

export function showThreshold(given) {
  if (!positions.length) return;
  const slider = find("threshold"), moved = state.threshold !== null;
  if (!moved) slider.value = nearestPosition(measured(given.length ? given : names));
  const text = moved ? percent(state.threshold) : "the model’s own threshold";
  find("threshold-value").textContent = text;
  slider.setAttribute("aria-valuetext", text);
  find("own").hidden = !moved;
  find("coverage").tBodies[0].replaceChildren(...curves.map((subset) => {
    const [, coverage, accuracy] = moved ? subset.curve.find((p) => p[0] === state.threshold) : ownPoint(subset);
    const now = given.length > 0 && subset === measured(given);
    const name = subset.given.length ? listed(subset.given) : `any other ${subset.size}`;
    const share = (value) => (value === null || value === undefined ? "–" : percent(value));
    return make("tr", { class: now ? "now" : "" }, make("th", { scope: "row", text: name + (now ? " (now)" : "") }),
      ...[subset.rows.toLocaleString("en"), share(coverage), share(accuracy)].map((text) => make("td", { text })));
  }));
}

function nearestPosition(subset) {
  const least = subset ? subset.threshold : null;
  if (least === null) return subset && subset.abstains ? positions.length - 1 : 0;
  return positions.reduce((best, value, k) => (Math.abs(value - least) < Math.abs(positions[best] - least) ? k : best), 0);
}

// What the model's own threshold gives, or what answering everything gives where it has none.
function ownPoint(subset) {
  if (subset.abstains) return [null, 0, null];
  if (subset.own) return [subset.threshold, ...subset.own];
  return subset.curve[0];
}
