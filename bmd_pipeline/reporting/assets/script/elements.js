// Making elements. Texts from data become text nodes, so nothing in them is ever read as markup.

const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const html = (name, attributes = {}, ...children) => build(document.createElement(name), attributes, children);

const svg = (name, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

const colourOf = (kind, index) => `--colour: var(--${kind}-${index})`;

// A row of buttons of which one is pressed; `act` gets its value.
function choices(container, label, options, chosen, act) {
  const buttons = options.map(({ value, text }) => {
    const one = html("button", { type: "button", "data-value": value, "aria-pressed": String(value === chosen) }, text);
    one.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === one));
      act(value);
    });
    return one;
  });
  container.replaceChildren(...(label ? [html("span", {}, label)] : []), ...buttons);
}

// Fills a <select> and keeps its choice if that is still on offer.
function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(({ value, text }) => html("option", { value }, text)));
  if (options.some(({ value }) => String(value) === before)) select.value = before;
}
