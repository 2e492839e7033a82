// Numbers to positions and to text.

const MINUS = "\u2212",
  THIN = "\u202f";

function linear([a, b], [from, to]) {
  const scale = (value) => from + ((value - a) / (b - a || 1)) * (to - from);
  scale.domain = [a, b];
  scale.range = [from, to];
  return scale;
}

function logarithmic([a, b], range) {
  const inner = linear([Math.log10(a), Math.log10(b)], range);
  return Object.assign((value) => inner(Math.log10(value)), { domain: [a, b], range });
}

// Round numbers within [low, high], about `count` of them.
function ticks([low, high], count) {
  const span = high - low || 1;
  const rough = span / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.75);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i += 1)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

// Lowest and highest of some numbers, with a little air; a single value gets a range around it.
function extent(values, air = 0.05) {
  const finite = values.filter((value) => value !== null && Number.isFinite(value));
  if (!finite.length) return [0, 1];
  const low = Math.min(...finite),
    high = Math.max(...finite);
  const pad = high > low ? air * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - pad, high + pad];
}

const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", MINUS);

const short = (value) => String(Number(value.toPrecision(3))).replace("-", MINUS);

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}${THIN}%`;
