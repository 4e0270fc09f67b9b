// Elements and words that every page needs.

export const find = (id) => document.getElementById(id);
export const percent = (share) => (100 * share).toFixed(1) + " %";

// An element; attributes that are false or null are left out, `on...` are listeners, `text` is its text.
export function make(tag, options = {}, ...children) {
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
export function breakable(text) {
  const parts = text.split(/(?<=[_\-.\/])/);
  return parts.flatMap((part, k) => (k ? [document.createElement("wbr"), part] : [part]));
}

// A picture; small ones that are values, not photographs, keep their square pixels.
export function picture(source, alt, pixels) {
  return make("img", { src: source, alt, class: pixels ? "pixels" : "" });
}
