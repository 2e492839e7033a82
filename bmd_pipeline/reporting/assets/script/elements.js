// Making elements. Texts from data become text nodes, so nothing in them is ever read as markup.

const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Fills a <select> and keeps its choice if that is still on offer.
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(({ value, text }) => html("option", { value }, text)));
  if (options.some(({ value }) => String(value) === before)) select.value = before;
}
