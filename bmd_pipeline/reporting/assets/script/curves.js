// Learning curves: a row per metric, a column per family of methods, one scale along each row.

const CURVES = [
  { key: "success", title: "success in rollouts", format: (value) => percent(value) },
  { key: "entropy", title: "change of the exploration's entropy, nats", format: short, fromStart: true },
  { key: "kl", title: "KL divergence of an update", format: short },
  { key: "mi_weight", title: "weight λ", format: short },
  { key: "information", title: "information M about the code, nats", format: short },
];

function startCurves() {
  const container = byId("curve-panels");
  const families = [...new Set(data.curves.map(({ policy }) => data.policies[policy].family))];
  if (!families.length) container.replaceChildren(html("p", { class: "note" }, "Nothing here was fine-tuned."));
  const panels = [];
  const held = heldWeight();
  for (const metric of CURVES) {
    if (metric.key === "mi_weight" && held !== null) continue;
    const drawn = data.curves
      .filter(({ values }) => values[metric.key])
      .map((run) => ({ ...run, y: heightsOf(run, metric) }));
    const domain = curveDomain(drawn, metric.key);
    for (const family of families) {
      const runs = drawn.filter(({ policy }) => data.policies[policy].family === family);
      if (runs.length) panels.push(() => addCurvePanel(container, metric, family, families.length > 1, runs, domain));
    }
  }
  for (const add of panels) add();
  if (held !== null)
    container.after(html("p", { class: "note" }, `The weight λ was held at ${short(held)} in all runs.`));
  const stride = Math.max(1, ...data.curves.map((run) => run.stride));
  if (stride > 1)
    container.after(
      html("p", { class: "note" }, `Each point stands for ${stride} iterations: their mean, of KL the largest.`),
    );
}

// What is drawn: the values, or how far they have come from the first one.
function heightsOf(run, metric) {
  const values = run.values[metric.key];
  const start = metric.fromStart ? values.find((value) => value !== null) : 0;
  return values.map((value) => (value === null ? null : value - start));
}

// λ, if no run ever changed it; a flat line in every panel would say no more.
function heldWeight() {
  const weights = new Set(data.curves.flatMap((run) => run.values.mi_weight ?? []));
  return weights.size === 1 ? [...weights][0] : null;
}

function curveDomain(runs, key) {
  const [low, high] = extent(
    runs.flatMap((run) => run.y),
    0.03,
  );
  if (key === "success") return [Math.max(0, Math.min(data.lowest, Math.floor(10 * low) / 10)), 1];
  return key === "kl" || key === "mi_weight" ? [0, Math.max(high, 1e-9)] : [low, high];
}

function addCurvePanel(container, metric, family, several, runs, domain) {
  const readout = html("span", { class: "range" });
  const chart = html("div", { class: "chart" });
  const title = html("span", {}, ...(several ? [html("b", {}, family), " "] : []), metric.title);
  container.append(html("figure", { "data-metric": metric.key }, html("figcaption", {}, title, readout), chart));
  responsive(chart, (width) => drawCurves(width, metric, family, runs, domain, readout));
}

function drawCurves(width, metric, family, runs, domain, readout) {
  const last = Math.max(...runs.map(({ step }) => step[step.length - 1]));
  const height = 170,
    margin = { left: 46, right: 44, top: 8, bottom: 26 };
  const plot = frame({
    width,
    height,
    margin,
    label: `${family}: ${metric.title} by iteration`,
    x: { domain: [0, last], ticks: ticks([0, last], 4), format: short },
    y: { domain, ticks: ticks(domain, 4), format: metric.format },
  });
  const reference = referenceOf(metric, runs);
  if (reference && reference.value >= domain[0] && reference.value <= domain[1]) {
    const at = plot.y(reference.value);
    plot.root.append(
      svg("line", { class: "line reference", x1: margin.left, x2: width - margin.right, y1: at, y2: at }),
      svg("text", { x: width - margin.right + 6, y: at + 4 }, reference.name),
    );
  }
  const methods = [...new Set(runs.map(({ policy }) => policy))];
  const means = methods.map((policy) => meanCurve(runs.filter((run) => run.policy === policy)));
  for (const run of runs) {
    plot.root.append(
      curveLine(
        run.policy,
        "one",
        run.step.map((step, i) => [plot.x(step), heightOf(plot, run.y[i])]),
      ),
    );
  }
  methods.forEach((policy, k) => {
    if (means[k])
      plot.root.append(
        curveLine(
          policy,
          "",
          means[k].step.map((step, i) => [plot.x(step), heightOf(plot, means[k].values[i])]),
        ),
      );
  });
  plot.root.append(...endLabels(methods, means, plot, width - margin.right, reference));
  followPointer(plot, methods, means, metric, readout, { ...margin, width, height });
  return plot.root;
}

// Success of the base policy over the gradient steps of its pre-training; a dot marks the weights that were kept.
function startPretraining() {
  const run = data.pretraining;
  if (!run) return;
  const chart = html("div", { class: "chart" });
  const title = "success of the base policy over the gradient steps of pre-training";
  byId("pretraining").append(
    html("figure", { "data-metric": "pretraining" }, html("figcaption", {}, html("span", {}, title)), chart),
  );
  const last = run.step[run.step.length - 1];
  const policy = data.policies.find((one) => one.base) ?? data.policies[0];
  responsive(chart, (width) => {
    const plot = frame({
      width,
      height: 170,
      margin: { left: 46, right: 44, top: 8, bottom: 26 },
      label: title,
      x: { domain: [0, last], ticks: ticks([0, last], 4), format: short },
      y: { domain: [0, 1], ticks: ticks([0, 1], 4), format: (value) => percent(value) },
    });
    const points = run.step.map((step, i) => [plot.x(step), heightOf(plot, run.success[i])]);
    plot.root.append(curveLine(policy.index, "", points));
    const kept = run.step.indexOf(run.kept);
    if (kept >= 0) plot.root.append(shape(policy, ...points[kept], 5));
    return plot.root;
  });
}

const heightOf = (plot, value) => (value === null ? null : plot.y(value));

function curveLine(policy, kind, points) {
  const plain = data.policies[policy].coded ? "" : " plain";
  return svg("path", { class: `line ${kind}${plain}`, style: colourOf("policy", policy), d: trace(points) });
}

function referenceOf(metric, runs) {
  if (metric.key === "success") {
    const base = data.policies.find((policy) => policy.base);
    return base ? { value: base.success[0], name: "before" } : null;
  }
  const target = metric.key === "kl" ? runs[0].targetKl : null;
  return target ? { value: target, name: "target" } : null;
}

// Mean over seeds, where all have the same steps.
function meanCurve(runs) {
  const { step } = runs[0];
  if (!runs.every((run) => run.step.length === step.length && run.step.every((value, i) => value === step[i])))
    return null;
  const values = step.map((_, i) => {
    const there = runs.map((run) => run.y[i]).filter((value) => value !== null);
    return there.length ? there.reduce((one, other) => one + other, 0) / there.length : null;
  });
  return { step, values };
}

function endLabels(methods, means, plot, edge, reference) {
  const ends = methods
    .map((policy, k) => ({ policy, value: means[k] ? means[k].values.findLast((value) => value !== null) : null }))
    .filter(({ value }) => value !== null && value !== undefined);
  const heights = ends.map(({ value }) => plot.y(value));
  if (reference) heights.push(plot.y(reference.value));
  const moved = spreadOut(heights, 14, 10, plot.y.range[0] - 4);
  return ends.map(({ policy }, k) =>
    svg("text", { class: "name", x: edge + 6, y: moved[k] + 4 }, data.policies[policy].coded ? "codes" : "plain"),
  );
}

// A vertical line under the pointer, and the means there in the figure's corner.
function followPointer(plot, methods, means, metric, readout, box) {
  const cursor = svg("line", { class: "zero", y1: box.top, y2: box.height - box.bottom, visibility: "hidden" });
  plot.root.append(cursor);
  const known = means.find(Boolean);
  if (!known) return;
  plot.root.addEventListener("pointermove", (event) => {
    const bounds = plot.root.getBoundingClientRect();
    const share = (event.clientX - bounds.left - box.left) / (box.width - box.left - box.right);
    const wanted = Math.min(1, Math.max(0, share)) * plot.x.domain[1];
    const at = known.step.reduce(
      (best, step, i) => (Math.abs(step - wanted) < Math.abs(known.step[best] - wanted) ? i : best),
      0,
    );
    cursor.setAttribute("x1", plot.x(known.step[at]));
    cursor.setAttribute("x2", plot.x(known.step[at]));
    cursor.setAttribute("visibility", "visible");
    const values = methods.map((policy, k) => {
      const value = means[k]?.values[at];
      return value === null || value === undefined
        ? null
        : `${data.policies[policy].coded ? "codes" : "plain"} ${metric.format(value)}`;
    });
    readout.textContent = `${known.step[at]}: ${values.filter(Boolean).join(", ")}`;
  });
  plot.root.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = "";
  });
}
