// Success, modes and signs of instability against λ; λ = 0 and controllers stand beside the logarithmic scale.

const SIGNS = [
  { key: "final_weight", title: "λ in the end" },
  { key: "kl_peak", title: "largest KL of an update, nats" },
  { key: "early_stops", title: "updates stopped early", share: true },
  { key: "entropy_change", title: "change of the exploration's entropy, nats" },
  { key: "information_change", title: "change of the information M, nats" },
  { key: "return_variance", title: "variance of the return between updates" },
];
const BESIDE = 0.7; // decades

function startSweep() {
  const { sweep } = data;
  if (!sweep) return;
  const places = placePoints(sweep.points);
  const scores = [
    {
      title: "success rate",
      of: (point) => point.success,
      floor: sweep.successFloor,
      format: (value) => percent(value),
      domain: sweepDomain(sweep, "success", sweep.successFloor),
    },
    {
      title: `modes solved, of ${sweep.total}`,
      of: (point) => point.solved,
      floor: sweep.solvedFloor,
      format: short,
      domain: [0, 1.04 * sweep.total],
    },
    { title: "obeyed", of: (point) => point.obeyed, format: (value) => percent(value), domain: [0, 1.04] },
  ];
  for (const score of scores) addSweepPanel(byId("sweep-scores"), { ...score, height: 240, band: true }, places);
  for (const { key, title, share } of SIGNS) {
    const values = sweep.points.flatMap((point) => point.signs[key].seeds);
    if (values.every((value) => value === 0)) continue;
    const [low, high] = extent(values);
    const domain = Math.min(...values) >= 0 ? [0, high] : [low, high];
    addSweepPanel(
      byId("sweep-signs"),
      {
        title,
        of: (point) => ({ value: [point.signs[key].mean], seeds: point.signs[key].seeds }),
        format: share ? (value) => percent(value) : short,
        domain,
        height: 170,
      },
      places,
    );
  }
}

function sweepDomain(sweep, key, floor) {
  const lows = sweep.points.flatMap((point) => [point[key].value[1], ...point[key].seeds]);
  return [Math.max(0, Math.floor(10 * Math.min(floor, ...lows)) / 10), 1];
}

// Position of each point across, in decades of λ.
function placePoints(points) {
  const weights = points.map(({ weight }) => weight).filter((weight) => weight > 0);
  const low = Math.log10(Math.min(...weights, 1)),
    high = Math.log10(Math.max(...weights, Math.min(...weights, 1)));
  let beside = high;
  return points.map(({ weight }) => {
    if (weight === null) return (beside += BESIDE);
    return weight > 0 ? Math.log10(weight) : low - BESIDE;
  });
}

function addSweepPanel(container, panel, places) {
  const chart = html("div", { class: "chart" });
  container.append(html("figure", {}, html("figcaption", {}, html("span", {}, panel.title)), chart));
  responsive(chart, (width) => drawSweep(width, panel, places));
}

function drawSweep(width, { title, of, floor, format, domain, height, band }, places) {
  const { sweep } = data;
  const { points } = sweep;
  const margin = { left: 46, right: 16, top: 10, bottom: 44 };
  const nameOf = ({ weight, controller }) => (weight === null ? controller : short(weight));
  const plot = frame({
    width,
    height,
    margin,
    label: `${title} against λ: ${points.map((point) => `${nameOf(point)} ${format(of(point).value[0])}`).join("; ")}`,
    x: { domain: [Math.min(...places) - 0.25, Math.max(...places) + 0.35], ticks: [], format: short, title: "λ" },
    y: { domain, ticks: ticks(domain, 4), format },
  });
  const inside = places.filter((_, i) => sweep.plateau.includes(points[i].name));
  if (band && inside.length) {
    const from = plot.x(Math.min(...inside) - 0.15),
      to = plot.x(Math.max(...inside) + 0.15);
    plot.root.prepend(
      svg("rect", {
        class: "band",
        x: from,
        width: to - from,
        y: margin.top,
        height: height - margin.top - margin.bottom,
      }),
    );
  }
  if (floor !== undefined)
    plot.root.append(
      svg("line", {
        class: "line reference",
        x1: margin.left,
        x2: width - margin.right,
        y1: plot.y(floor),
        y2: plot.y(floor),
      }),
    );
  const constants = points.map((_, i) => i).filter((i) => points[i].weight > 0);
  plot.root.append(
    svg("path", {
      class: "line",
      style: sweepColour(),
      d: trace(constants.map((i) => [plot.x(places[i]), plot.y(of(points[i]).value[0])])),
    }),
  );
  points.forEach((point, i) => plot.root.append(...sweepMarks(point, of(point), plot.x(places[i]), plot)));
  plot.root.append(...sweepNames(points.map(nameOf), places.map(plot.x), height - margin.bottom + 17));
  return plot.root;
}

const sweepColour = () => (data.sweep.policy < 0 ? "--colour: var(--ink)" : colourOf("policy", data.sweep.policy));

function sweepMarks(point, { value, seeds }, x, plot) {
  const [mean, low, high] = value;
  const parts = seeds.map((seed) =>
    svg("circle", { class: "seed", style: sweepColour(), cx: x, cy: plot.y(seed), r: 2.5 }),
  );
  if (low !== undefined)
    parts.push(
      svg("line", { class: "interval", style: sweepColour(), x1: x, x2: x, y1: plot.y(low), y2: plot.y(high) }),
    );
  parts.push(
    svg("circle", {
      class: `shape${point.holds ? "" : " hollow"}`,
      style: sweepColour(),
      cx: x,
      cy: plot.y(mean),
      r: 4,
    }),
  );
  return parts;
}

// Names below the axis; a name that would touch the one before it goes a line lower.
function sweepNames(names, across, y) {
  const ends = [-Infinity, -Infinity];
  return names.map((name, i) => {
    const half = 3.6 * name.length;
    const row = across[i] - half > ends[0] + 4 ? 0 : 1;
    ends[row] = across[i] + half;
    return svg("text", { x: across[i], y: y + 13 * row, "text-anchor": "middle" }, name);
  });
}
