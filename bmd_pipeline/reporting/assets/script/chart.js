// The frame of every chart: drawn at the width it has, and again when that changes, so that text keeps its size.

function responsive(container, draw) {
  let width = 0;
  const redraw = () => {
    width = container.clientWidth;
    if (width > 0) container.replaceChildren(draw(width));
  };
  new ResizeObserver(() => {
    if (container.clientWidth !== width) redraw();
  }).observe(container);
  redraw();
  return redraw;
}

// An empty chart: an <svg> with grid, tick labels and axis titles, and its two scales.
function frame({ width, height, margin, x, y, label }) {
  const right = width - margin.right,
    bottom = height - margin.bottom;
  const xScale = (x.log ? logarithmic : linear)(x.domain, [margin.left, right]);
  const yScale = (y.log ? logarithmic : linear)(y.domain, [bottom, margin.top]);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of y.ticks) {
    const at = yScale(tick);
    root.append(
      svg("line", { class: "gridline", x1: margin.left, x2: right, y1: at, y2: at }),
      svg("text", { x: margin.left - 8, y: at + 4, "text-anchor": "end" }, y.format(tick)),
    );
  }
  for (const tick of x.ticks) {
    const at = xScale(tick);
    root.append(
      x.grid
        ? svg("line", { class: "gridline", x1: at, x2: at, y1: margin.top, y2: bottom })
        : svg("line", { class: "zero", x1: at, x2: at, y1: bottom, y2: bottom + 4 }),
      svg("text", { x: at, y: bottom + 18, "text-anchor": "middle" }, x.format(tick)),
    );
  }
  root.append(svg("line", { class: "zero", x1: margin.left, x2: right, y1: bottom, y2: bottom }));
  if (x.title) root.append(svg("text", { x: right, y: bottom + 36, "text-anchor": "end" }, x.title));
  if (y.title) root.append(svg("text", { x: margin.left, y: margin.top - 12, "text-anchor": "start" }, y.title));
  return { root, x: xScale, y: yScale };
}

// A policy's mark at a point, as in the tables.
function shape(policy, x, y, size, className = "shape") {
  const attributes = {
    class: `${className}${policy.filled ? "" : " hollow"}`,
    style: colourOf("policy", policy.index),
  };
  if (policy.marker === "D")
    return svg("path", { ...attributes, d: `M${x} ${y - size}l${size} ${size}l${-size} ${size}l${-size} ${-size}Z` });
  if (policy.marker === "s")
    return svg("rect", {
      ...attributes,
      x: x - 0.85 * size,
      y: y - 0.85 * size,
      width: 1.7 * size,
      height: 1.7 * size,
    });
  return svg("circle", { ...attributes, cx: x, cy: y, r: 0.95 * size });
}

// Moves heights apart until neighbours are `gap` from each other, and keeps all within [low, high].
function spreadOut(heights, gap, low, high) {
  const order = heights.map((at, i) => ({ at, i })).sort((one, other) => one.at - other.at);
  for (let round = 0; round < 60; round += 1) {
    for (let k = 1; k < order.length; k += 1) {
      const overlap = gap - (order[k].at - order[k - 1].at);
      if (overlap > 0) {
        order[k].at += overlap / 2;
        order[k - 1].at -= overlap / 2;
      }
    }
    for (const one of order) one.at = Math.min(high, Math.max(low, one.at));
  }
  const moved = [];
  for (const { at, i } of order) moved[i] = at;
  return moved;
}

// A path through points; gaps where a value is missing.
function trace(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (y === null || !Number.isFinite(y)) {
        pen = "M";
        return "";
      }
      const part = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}
