// The page of `mmssl serve`: what is given on one side, what the model says on the other, again at each change.

import { buildThreshold, showThreshold } from "./abstaining.js";
import { buildAnswer, showAnswer, showNothing } from "./answering.js";
import { isWaiting } from "./asking.js";
import { showBehind } from "./behind.js";
import { loadExamples, showExamples } from "./examples.js";
import { buildModalities, showModalities } from "./giving.js";
import { find } from "./page.js";
import { answerOf, changed, facts, onChange, switchedOn } from "./state.js";

function show() {
  const given = switchedOn(), answer = answerOf(given);
  showModalities();
  showExamples();
  showThreshold(given);
  if (!answer && isWaiting()) return; // the last answer stays until the next is here
  find("nothing").hidden = Boolean(answer);
  find("said").hidden = !answer;
  find("behind").hidden = !answer;
  if (!answer) return showNothing(given);
  showAnswer(answer, given);
  showBehind(answer, given);
}

buildModalities();
buildAnswer(changed);
buildThreshold();
onChange(show);
if (facts.examples) {
  find("more").addEventListener("click", loadExamples);
  loadExamples();
}
show();
