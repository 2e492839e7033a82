// Code → mode matrices, one per seed: those of one method, and those before fine-tuning.

function startCodes() {
  const container = byId("code-matrices");
  if (!container) return;
  const methods = [...new Set(data.codes.map(({ policy }) => policy))];
  container.classList.toggle("broad", data.modes.length > 10);
  const show = (policy) =>
    container.replaceChildren(...data.codes.filter((one) => one.policy === policy).map(codeMatrix));
  choices(
    byId("code-policies"),
    "method",
    methods.map((policy) => ({ value: policy, text: data.policies[policy].name })),
    methods[0],
    show,
  );
  show(methods[0]);
}

function startValidation() {
  byId("validation-matrices")?.replaceChildren(...data.validation.map(codeMatrix));
  byId("validation-matrices")?.classList.toggle("broad", data.modes.length > 10);
}

function codeMatrix({ policy, seed, rows }) {
  const name = policy === null ? "frozen policy" : data.policies[policy].name;
  const many = data.modes.length > 10;
  const head = html(
    "tr",
    {},
    html("th", { scope: "col" }, "code"),
    ...data.modes.map((mode) => html("th", { scope: "col" }, html("span", {}, mode))),
    html("th", { scope: "col" }, html("span", {}, "success")),
    ...(policy === null ? [] : [html("th", { scope: "col" }, html("span", {}, "obeyed"))]),
  );
  const body = rows.map((row) =>
    html(
      "tr",
      {},
      html("th", { scope: "row", title: row.behaviour ?? "" }, String(row.code)),
      ...row.shares.map((share, mode) => codeCell(row, share, mode)),
      html("td", { class: "rate" }, percent(row.success)),
      ...(policy === null ? [] : [html("td", { class: "rate" }, percent(row.obeyed))]),
    ),
  );
  return html(
    "figure",
    { "data-seed": seed },
    html("figcaption", {}, html("span", {}, html("b", {}, name), ` seed ${seed}`)),
    html("table", { class: `matrix${many ? " many" : ""}` }, html("thead", {}, head), html("tbody", {}, ...body)),
  );
}

// The disc's area is the share.
function codeCell(row, share, mode) {
  const size = (86 * Math.sqrt(share)).toFixed(1);
  const text = `code ${row.code}: ${data.modes[mode]} ${percent(share)} of ${Math.round(row.success * row.episodes)} successes`;
  const disc = share > 0 ? html("i", { style: `${colourOf("mode", mode)}; width: ${size}%` }) : null;
  return html("td", { class: "cell", title: text }, disc, html("span", { class: "hidden" }, percent(share)));
}
