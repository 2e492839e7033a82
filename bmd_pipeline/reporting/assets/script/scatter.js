// Success against modes: the page's main picture.

const AXES = {
  solved: { low: 0, title: (policy) => `modes solved, at a success rate ≥ ${percent(policy.tau)}, of ${policy.total}` },
  present: { low: 0, title: (policy) => `modes present, with 1 % of the successes or more, of ${policy.total}` },
  spread: {
    low: 1,
    title: (policy) => `evenness of modes, exp(H): 1 is a single mode, ${policy.total} is all equally often`,
  },
};

// Draws the picture, and again when the width changes; returns what draws it after `options` were changed.
function drawScatter(container, policies, options) {
  const { height, low, compact = false } = options;
  const total = policies[0].total;
  const narrow = container.clientWidth < 560;
  const longest = Math.max(...policies.map(({ name }) => name.length));
  const margin = { left: 48, right: 24 + 7.2 * longest, top: 30, bottom: compact ? 40 : 48 };
  return responsive(container, (width) => {
    const { axis } = options;
    const { low: left, title } = AXES[axis];
    const high = Math.max(total, left + 1);
    const air = 0.03 * (high - left);
    const plot = frame({
      width,
      height,
      margin,
      label: policies
        .map(
          ({ name, success, [axis]: modes }) =>
            `${name}: success ${percent(success[0], 1)}, ${fixed(modes[0], 1)} of ${total} modes`,
        )
        .join("; "),
      x: {
        domain: [left - air, high + air],
        ticks: modeTicks(left, high, axis, narrow || compact ? 4 : 8),
        format: short,
        title: compact
          ? axis === "spread"
            ? `evenness of modes, of ${total}`
            : `modes ${axis}, of ${total}`
          : narrow
            ? "modes"
            : title(policies[0]),
        grid: true,
      },
      y: {
        domain: [low, 1 + 0.04 * (1 - low)],
        ticks: ticks([low, 1], 5),
        format: (value) => percent(value),
        title: "success rate",
      },
    });
    for (const policy of policies) plot.root.append(...policySeeds(policy, plot, axis));
    const marks = placeMarks(policies, plot, axis, compact ? 11 : 15);
    plot.root.append(...policyLabels(policies, marks, width - margin.right, height - margin.bottom));
    policies.forEach((policy, i) => plot.root.append(policyPoint(policy, marks[i], plot, axis, compact)));
    return plot.root;
  });
}

// Whole numbers of modes, always with all of them.
function modeTicks(low, high, axis, count) {
  const found = ticks([low, high], count).filter((tick) => axis === "spread" || Number.isInteger(tick));
  const step = found.length > 1 ? found[1] - found[0] : 1;
  return [...found.filter((tick) => high - tick >= 0.6 * step), high];
}

function policySeeds(policy, plot, axis) {
  if (policy.seeds.length < 2) return [];
  return policy.seeds.map((seed) => shape(policy, plot.x(seed[axis]), plot.y(seed.success), 3.2, "seed"));
}

// Where marks stand: those that would cover each other step aside, towards the middle.
function placeMarks(policies, plot, axis, apart) {
  const placed = [];
  for (const policy of policies) {
    let x = plot.x(policy[axis][0]);
    const y = plot.y(policy.success[0]);
    const step = x > (plot.x.range[0] + plot.x.range[1]) / 2 ? -apart : apart;
    while (placed.some(([otherX, otherY]) => Math.hypot(otherX - x, otherY - y) < apart)) x += step;
    placed.push([x, y]);
  }
  return placed;
}

function policyPoint(policy, [x, y], plot, axis, compact) {
  const aside = x - plot.x(policy[axis][0]);
  const [xLow, xHigh] = policy[axis].slice(1).map((value) => plot.x(value) + aside);
  const [yLow, yHigh] = policy.success.slice(1).map(plot.y);
  const text = `${policy.name}: success ${percent(policy.success[0], 1)}, ${fixed(policy[axis][0], 2)} of ${policy.total} modes, obeyed ${percent(policy.obeyed, 1)}`;
  return svg(
    "g",
    { style: colourOf("policy", policy.index), "data-policy": policy.index },
    svg("title", {}, text),
    svg("line", { class: "interval", x1: xLow, x2: xHigh, y1: y, y2: y }),
    svg("line", { class: "interval", x1: x, x2: x, y1: yLow, y2: yHigh }),
    shape(policy, x, y, compact ? 5 : 6.5),
  );
}

// The page of all tasks: one small picture each.
function startPictures() {
  for (const figure of document.querySelectorAll("[data-task]")) {
    const { policies } = data.tasks[Number(figure.dataset.task)];
    const axis = policies.some(({ solved }) => solved[0] > 0) ? "solved" : "present";
    drawScatter(figure.querySelector(".chart"), policies, { axis, height: 250, low: data.lowest, compact: true });
  }
}

function startScatter() {
  const container = byId("scatter");
  const { policies } = data;
  const buttons = [...document.querySelectorAll("[data-axis]")];
  const options = { axis: policies.some(({ solved }) => solved[0] > 0) ? "solved" : "present", height: 380, low: data.lowest };
  const redraw = drawScatter(container, policies, options);
  const choose = (axis) => {
    options.axis = axis;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.axis === axis));
    redraw();
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.axis));
  buttons[0].parentElement.hidden = policies[0].total === 1;
  choose(options.axis);
}
