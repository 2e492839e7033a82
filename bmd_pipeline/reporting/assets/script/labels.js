// Names of the marks in the main picture, placed so that they can be read.

// Names near the right edge share a column in the margin, in the order of their marks; others stand beside their mark
// where they cover neither marks nor other names, else a little further off.
function policyLabels(policies, marks, edge, bottom) {
  const taken = marks.map(([x, y]) => ({ left: x - 8, right: x + 8, top: y - 8, bottom: y + 8 }));
  const order = marks.map((_, i) => i).sort((one, other) => marks[one][1] - marks[other][1]);
  const outer = order.filter((i) => marks[i][0] > edge - 60);
  const heights = spreadOut(
    outer.map((i) => marks[i][1]),
    16,
    8,
    bottom,
  );
  const parts = outer.flatMap((i, k) => policyLabel(policies[i], marks[i], edge + 16, heights[k], edge + 12));
  for (const i of order.filter((k) => !outer.includes(k))) {
    const places = labelPlaces(...marks[i], 7 * policies[i].name.length);
    const costs = places.map(({ box, far }) => labelCost(box, taken, edge, bottom) + far);
    const { box, far } = places[costs.indexOf(Math.min(...costs))];
    taken.push(box);
    parts.push(
      ...policyLabel(
        policies[i],
        marks[i],
        box.left,
        box.top + 7,
        far ? Math.min(box.right, Math.max(box.left, marks[i][0])) : null,
      ),
    );
  }
  return parts;
}

// A name, with a line from its mark where it needs one.
function policyLabel(policy, [x, y], left, middle, leaderTo) {
  return [
    ...(leaderTo === null ? [] : [svg("path", { class: "leader", d: `M${x} ${y}L${leaderTo} ${middle}` })]),
    svg("text", { class: "name halo", x: left, y: middle + 4 }, policy.name),
  ];
}

function labelPlaces(x, y, width) {
  const place = (left, middle, far) => ({
    box: { left, right: left + width, top: middle - 7, bottom: middle + 7 },
    far,
  });
  const sides = [x + 10, x - 10 - width];
  const near = sides.flatMap((left) => [place(left, y - 12, 0), place(left, y + 12, 0)]);
  const away = [26, 42, 58, 74, 90].flatMap((step) =>
    sides.flatMap((left) => [place(left, y - step, 0.3 + step / 100), place(left, y + step, 0.3 + step / 100)]),
  );
  return [...near, place(x + 12, y, 0), ...away];
}

// How many boxes a name would cover; leaving the chart counts double.
function labelCost(box, taken, right, bottom) {
  const covered = taken.filter(
    (other) =>
      box.left < other.right + 2 && other.left < box.right + 2 && box.top < other.bottom && other.top < box.bottom,
  ).length;
  return covered + (box.left < 40 || box.right > right || box.top < 0 || box.bottom > bottom ? 2 : 0);
}
