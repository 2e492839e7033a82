// Before and after: one canvas per policy, all on the same axes; pressing a mode brings it out everywhere.

function startPanels(paths) {
  const panels = [...document.querySelectorAll(".panel")];
  const seeds = [...new Set(paths.groups.map(({ seed }) => seed))].sort((one, other) => one - other);
  const state = { seed: seeds[0], mode: null };
  const paint = () => panels.forEach((panel) => paintPanel(panel, paths, state));

  choices(
    byId("panel-seeds"),
    "seed",
    seeds.map((seed) => ({ value: seed, text: String(seed) })),
    state.seed,
    (seed) => {
      state.seed = seed;
      paint();
    },
  );
  const buttons = [...document.querySelectorAll(".legend button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const mode = Number(button.dataset.mode);
      state.mode = state.mode === mode ? null : mode;
      for (const other of buttons)
        other.setAttribute("aria-pressed", String(Number(other.dataset.mode) === state.mode));
      dimShares(state.mode);
      paint();
    });
  }
  let width = 0;
  new ResizeObserver(() => {
    const now = panels[0].clientWidth;
    if (now !== width) paint();
    width = now;
  }).observe(panels[0]);
  onRepaint(paint);
}

function dimShares(mode) {
  document.querySelector(".shares").classList.toggle("dimmed", mode !== null && mode >= 0);
  for (const part of document.querySelectorAll(".stack span"))
    part.classList.toggle("chosen", Number(part.dataset.mode) === mode);
}

function paintPanel(panel, paths, state) {
  const policy = Number(panel.dataset.policy);
  const group = groupOf(paths, policy, state.seed);
  const note = panel.querySelector(".note");
  const { context, width, height } = prepareCanvas(panel.querySelector("canvas"), planeAspect(paths, data.toScale));
  if (!group) {
    note.textContent = `has no seed ${state.seed}`;
    return;
  }
  const seed = data.policies[policy].seeds.find((row) => row.seed === state.seed);
  note.textContent = `success ${percent(seed.success, 1)}, ${seed.solved} of ${data.policies[policy].total} modes solved, obeyed ${percent(seed.obeyed, 1)}`;
  const project = planeProjection(paths, data.toScale, width, height);
  paintGrid(context, project, paths, width, height, data.policies[policy].base && width > 150);
  const colours = modeColours();
  const failed = ink("failed");
  const density = Math.min(1, 60 / group.members.length);
  // Failures come last: below the others they would vanish, and a weak policy would look like a good one.
  for (const success of [1, 0]) {
    for (const i of group.members) {
      if (paths.success[i] !== success) continue;
      const shown = state.mode === null || (success ? paths.mode[i] === state.mode : state.mode === -1);
      const colour = success && paths.mode[i] >= 0 ? colours[paths.mode[i]] : failed;
      context.globalAlpha = shown ? (success ? 0.45 + 0.4 * density : 0.8) : 0.06;
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = success ? 1.1 : 0.7;
      const end = strokePath(context, project, paths, i);
      if (success) paintDot(context, end, 1.8);
    }
  }
  context.globalAlpha = 1;
}
