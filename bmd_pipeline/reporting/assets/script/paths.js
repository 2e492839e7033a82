// Trajectories as they travel in the page: unpacked once, painted on canvases.

function unpackPaths(packed) {
  const bytes = Uint8Array.from(atob(packed.xy), (letter) => letter.charCodeAt(0));
  const words = new DataView(bytes.buffer);
  const shares = new Float32Array(bytes.length / 2);
  for (let i = 0; i < shares.length; i += 1) shares[i] = words.getUint16(2 * i, true) / 65535;
  const groups = [];
  let first = 0;
  for (const { policy, seed, count, recorded } of packed.groups) {
    groups.push({ policy, seed, recorded, members: Array.from({ length: count }, (_, i) => first + i) });
    first += count;
  }
  const { points, low, high, code, mode, success, length } = packed;
  return { shares, groups, points, low, high, code, mode, success, length };
}

const groupOf = (paths, policy, seed) => paths.groups.find((group) => group.policy === policy && group.seed === seed);

// Width over height of the plane, where both axes have one unit.
function planeAspect(paths, toScale) {
  if (!toScale) return 1;
  const [width, height] = [0, 1].map((axis) => paths.high[axis] - paths.low[axis]);
  return Math.min(1.6, Math.max(0.7, width / height || 1));
}

// From a path's shares to pixels: all of the plane fits, with a margin, to scale if its axes are.
function planeProjection(paths, toScale, width, height) {
  const margin = 0.05 * Math.min(width, height);
  const spans = [0, 1].map((axis) => paths.high[axis] - paths.low[axis] || 1);
  let fit = [(width - 2 * margin) / spans[0], (height - 2 * margin) / spans[1]];
  if (toScale) fit = [Math.min(...fit), Math.min(...fit)];
  const left = (width - fit[0] * spans[0]) / 2,
    bottom = (height + fit[1] * spans[1]) / 2;
  return {
    x: (share) => left + share * spans[0] * fit[0],
    y: (share) => bottom - share * spans[1] * fit[1],
    world: [(value) => left + (value - paths.low[0]) * fit[0], (value) => bottom - (value - paths.low[1]) * fit[1]],
  };
}

// Sizes a canvas for the screen's pixels; returns its context in CSS pixels, cleared.
function prepareCanvas(canvas, aspect) {
  const width = canvas.clientWidth || 300,
    height = Math.round(width / aspect);
  const density = Math.max(2, window.devicePixelRatio || 1);
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.lineJoin = "round";
  return { context, width, height };
}

// Draws a path up to a share of its duration, 1 for all of it; returns where it then is.
function strokePath(context, project, paths, index, until = 1) {
  const { points, shares } = paths;
  const start = 2 * points * index,
    last = until * (points - 1),
    whole = Math.floor(last);
  context.beginPath();
  for (let i = 0; i <= whole; i += 1)
    context.lineTo(project.x(shares[start + 2 * i]), project.y(shares[start + 2 * i + 1]));
  const next = Math.min(whole + 1, points - 1),
    rest = last - whole;
  const end = [0, 1].map(
    (axis) => (1 - rest) * shares[start + 2 * whole + axis] + rest * shares[start + 2 * next + axis],
  );
  const at = [project.x(end[0]), project.y(end[1])];
  context.lineTo(...at);
  context.stroke();
  return at;
}

function paintDot(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function paintCross(context, [x, y], radius) {
  context.beginPath();
  context.moveTo(x - radius, y - radius);
  context.lineTo(x + radius, y + radius);
  context.moveTo(x + radius, y - radius);
  context.lineTo(x - radius, y + radius);
  context.stroke();
}

// Grid lines at round numbers, with the numbers along two edges.
function paintGrid(context, project, paths, width, height) {
  context.lineWidth = 1;
  context.strokeStyle = ink("line");
  context.fillStyle = ink("soft");
  context.font = `11px ${ink("sans")}`;
  [0, 1].forEach((axis) => {
    for (const tick of ticks([paths.low[axis], paths.high[axis]], 4)) {
      const at = Math.round(project.world[axis](tick)) + 0.5;
      context.beginPath();
      context.moveTo(axis ? 0 : at, axis ? at : 0);
      context.lineTo(axis ? width : at, axis ? at : height);
      context.stroke();
      context.textAlign = "left";
      context.fillText(short(tick), axis ? 4 : at + 4, axis ? at - 4 : height - 5);
    }
  });
}

const modeColours = () => data.modes.map((_, i) => ink(`mode-${i}`));

// Round numbers within [low, high], about `count` of them.
function ticks([low, high], count) {
  const span = high - low || 1;
  const rough = span / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.75);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i += 1)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

const short = (value) => String(Number(value.toPrecision(3))).replace("-", "\u2212");
