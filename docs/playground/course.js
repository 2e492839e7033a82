// The obstacle course of AvoidPoint (bmd_pipeline/tasks/avoid_point), for one point: lengths in metres, numbers rounded
// to float32 where the package's are. A test plays both side by side.

export const ROWS = [
  { y: -0.1, posts: [0.5], radius: 0.03, gaps: ["L", "R"] },
  { y: 0.08, posts: [0.425, 0.575], radius: 0.025, gaps: ["L", "M", "R"] },
  { y: 0.26, posts: [0.35, 0.5, 0.65], radius: 0.025, gaps: ["1", "2", "3", "4"] },
];
export const START = [0.525, -0.28];
export const START_STD = [0.01, 0.005];
export const FINISH_Y = 0.35;
export const FIELD_X = [0.1, 0.9];
export const FIELD_MIN_Y = -0.45;
export const POINT_RADIUS = 0.01;
export const HORIZON = 120;
const SPEED = Math.fround(0.012);
const CENTRE = [0.5, 0.035].map(Math.fround);
const SCALE = [0.15, 0.2].map(Math.fround);
const OCTAVES = [2, 4, 8];
const OUTER_OFFSET = 0.07;

/** Every post as {x, y, radius}; moving one moves what a walker bumps into, and nothing that a policy sees. */
export const makePosts = () =>
  ROWS.flatMap((row) => row.posts.map((x) => ({ x, y: row.y, radius: row.radius })));

/** x at which a path passes a gap of a row. */
export function gapCentre(row, gap) {
  const { posts } = row;
  const beside = [posts[0] - 2 * OUTER_OFFSET, ...posts, posts[posts.length - 1] + 2 * OUTER_OFFSET];
  return (beside[gap] + beside[gap + 1]) / 2;
}

/** What a policy sees of a position: it at order one, then sines and cosines at three octaves. */
export function observe([x, y]) {
  const scaled = [x, y].map((value, axis) => Math.fround(Math.fround(value - CENTRE[axis]) / SCALE[axis]));
  const waves = OCTAVES.flatMap((octave) => {
    const angles = scaled.map((value) => Math.fround(octave * value));
    return [...angles.map(Math.sin), ...angles.map(Math.cos)];
  });
  return Float32Array.from([...scaled, ...waves]);
}

/** A walker at a start drawn by two standard normal numbers. */
export function start(normal) {
  const position = START.map((value, axis) => Math.fround(Math.fround(START_STD[axis]) * normal[axis] + Math.fround(value)));
  return { position, steps: 0, gaps: [null, null, null], done: false, success: false };
}

/** One control step of a walker, changed in place; it stops at a post, outside of the field and behind the finish. */
export function step(walker, action, posts) {
  if (walker.done) return;
  const bounded = action.map((value) => Math.min(1, Math.max(-1, value)));
  walker.position = walker.position.map((value, axis) => Math.fround(value + Math.fround(SPEED * bounded[axis])));
  walker.steps += 1;
  const [x, y] = walker.position;
  ROWS.forEach((row, index) => {
    if (walker.gaps[index] === null && y >= Math.fround(row.y)) {
      walker.gaps[index] = row.posts.filter((post) => x > Math.fround(post)).length;
    }
  });
  const hit = posts.some((post) => (x - post.x) ** 2 + (y - post.y) ** 2 < (post.radius + POINT_RADIUS) ** 2);
  const failed = hit || x < FIELD_X[0] || x > FIELD_X[1] || y < FIELD_MIN_Y;
  walker.success = y > FINISH_Y && !failed;
  walker.done = failed || walker.success || walker.steps >= HORIZON;
}

/** Name of the way that a walker took, such as "L-M-2"; null for one that has not passed all rows. */
export function wayOf(walker) {
  if (walker.gaps.includes(null)) return null;
  return walker.gaps.map((gap, index) => ROWS[index].gaps[gap]).join("-");
}
