// What the parts of the script share. Texts from data become text nodes, so nothing in them is ever read as markup.

const data = JSON.parse(document.getElementById("data").textContent);

const root = document.documentElement;
const byId = (id) => document.getElementById(id);

// A colour or font of the style sheets, for canvases.
const ink = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

// Fills a <select> and keeps its choice if that is still on offer.
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(({ value, text }) => new Option(text, value)));
  if (options.some(({ value }) => String(value) === before)) select.value = before;
}
