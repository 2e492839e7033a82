// The page: pick a way, drag a post into it, and see who arrives.

import * as course from "./course.js";

const canvas = document.getElementById("course");
const said = document.getElementById("said");
const context = canvas.getContext("2d");
const WIDTH = 0.8; // metres across the canvas
const BOTTOM = -0.33;
const scale = canvas.width / WIDTH;
const COLOURS = { plain: "#d55e00", told: "#0072b2" };

const state = { posts: course.makePosts(), way: [0, 1, 1], dragged: null, runs: [], playing: false, asked: false };
const toCanvas = ([x, y]) => [(x - 0.1) * scale, canvas.height - (y - BOTTOM) * scale];
const toCourse = (event) => {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * canvas.width;
  const y = ((event.clientY - box.top) / box.height) * canvas.height;
  return [x / scale + 0.1, BOTTOM + (canvas.height - y) / scale];
};
const wayName = () => state.way.map((gap, row) => course.ROWS[row].gaps[gap]).join("-");

function disc([x, y], radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

function line(points, colour, width, dash = []) {
  context.beginPath();
  points.map(toCanvas).forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  line([[0.1, course.FINISH_Y], [0.9, course.FINISH_Y]], "#888", 2);
  const chosen = state.way.map((gap, row) => [course.gapCentre(course.ROWS[row], gap), course.ROWS[row].y]);
  line([course.START, ...chosen, [chosen[2][0], course.FINISH_Y]], "#9ecae1", 6, [4, 8]);
  course.ROWS.forEach((row, index) =>
    row.gaps.forEach((name, gap) => {
      const place = toCanvas([course.gapCentre(row, gap), row.y]);
      disc(place, 12, state.way[index] === gap ? "#9ecae1" : "#e8e8e8");
      context.fillStyle = "#333";
      context.font = "13px sans-serif";
      context.textAlign = "center";
      context.fillText(name, place[0], place[1] + 5);
    }),
  );
  state.posts.forEach((post) => disc(toCanvas([post.x, post.y]), post.radius * scale, "#555"));
  state.runs.forEach(({ who, path }) => {
    line(path, COLOURS[who], 2.5);
    disc(toCanvas(path[path.length - 1]), course.POINT_RADIUS * scale, COLOURS[who]);
  });
}

/** Plays an episode and shows it as it goes; returns the walker at its end, or where another one was asked for. */
async function play(who, policy, code, begin) {
  const walker = course.start(begin);
  const run = { who, path: [walker.position] };
  state.runs.push(run);
  policy.reset(code);
  while (!walker.done && !state.asked) {
    course.step(walker, await policy.act(course.observe(walker.position)), state.posts);
    run.path.push(walker.position);
    draw();
    await new Promise(requestAnimationFrame);
  }
  return walker;
}

const describe = (walker) => {
  if (walker.success) return `arrived by ${course.wayOf(walker)}`;
  return walker.steps >= course.HORIZON ? "ran out of time" : "crashed";
};

/** Plays both policies from the same start; leaves off where the visitor asks for another way meanwhile. */
async function compare({ tuned, plain, normal }) {
  state.runs = [];
  const way = wayName();
  said.textContent = `told ${way} …`;
  delete said.dataset.told;
  const begin = [normal(), normal()];
  const first = await play("plain", plain, 0, begin);
  const second = await play("told", tuned, tuned.findCode(way), begin);
  if (state.asked) return;
  said.textContent = `plainly fine-tuned: ${describe(first)}; told ${way}: ${describe(second)}`;
  said.dataset.plain = describe(first);
  said.dataset.told = describe(second);
}

async function run(policies) {
  state.asked = true;
  if (state.playing) return;
  state.playing = true;
  while (state.asked) {
    state.asked = false;
    await compare(policies);
  }
  state.playing = false;
}

function listen(policies) {
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = toCourse(event);
    const post = state.posts.find((each) => Math.hypot(x - each.x, y - each.y) < each.radius + 0.01);
    if (post) {
      state.dragged = post;
      canvas.setPointerCapture(event.pointerId);
      return;
    }
    const gaps = course.ROWS.flatMap((row, index) =>
      row.gaps.map((_, gap) => ({ index, gap, far: Math.hypot(x - course.gapCentre(row, gap), y - row.y) })),
    );
    const nearest = gaps.reduce((best, each) => (each.far < best.far ? each : best));
    state.way[nearest.index] = nearest.gap;
    draw();
    run(policies);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.dragged) return;
    [state.dragged.x, state.dragged.y] = toCourse(event);
    draw();
  });
  const drop = () => {
    if (!state.dragged) return;
    state.dragged = null;
    run(policies);
  };
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
  document.getElementById("again").addEventListener("click", () => run(policies));
  document.getElementById("reset").addEventListener("click", () => {
    state.posts = course.makePosts();
    state.runs = [];
    draw();
  });
}

draw();
try {
  const { Policy, normal } = await import("./policy.js"); // here, where it is said if the runtime is not there
  const load = (folder) => Policy.load(new URL(folder, import.meta.url).href);
  const [tuned, plain] = await Promise.all(["tuned", "plain"].map(load));
  listen({ tuned, plain, normal });
  said.textContent = "Ready: click a gap, or drag a post.";
  said.dataset.ready = "yes";
} catch (error) {
  said.textContent = `The policies can't be loaded: ${error.message}. \`make playground\` fetches what runs them.`;
}
