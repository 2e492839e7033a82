// Replaying recorded episodes, control step by control step.

const SECONDS = 5; // that the longest episode takes on the screen

function startReplay(paths) {
  const canvas = byId("replay-canvas"),
    time = byId("replay-time"),
    play = byId("replay-play");
  const fields = Object.fromEntries(["policy", "seed", "mode", "code"].map((name) => [name, byId(`replay-${name}`)]));
  const state = { members: [], group: null, playing: false, step: 0, before: 0 };

  const choose = () => {
    offerChoices(fields, paths);
    const [policy, seed, mode, code] = ["policy", "seed", "mode", "code"].map((name) => fields[name].value);
    state.group = groupOf(paths, Number(policy), Number(seed));
    state.members = state.group.members.filter(
      (i) => (mode === "" || modeKey(paths, i) === mode) && (code === "" || String(paths.code[i]) === code),
    );
    const longest = Math.max(1, ...state.group.members.map((i) => paths.length[i]));
    time.max = longest;
    byId("replay-note").textContent = describeChoice(paths, state, fields);
    seek(longest);
  };
  const seek = (step) => {
    state.step = Math.min(Number(time.max), Math.max(0, step));
    time.value = Math.round(state.step);
    byId("replay-step").textContent = `step ${Math.round(state.step)} of ${time.max}`;
    paintReplay(canvas, paths, state);
  };
  const tick = (now) => {
    if (!state.playing) return;
    const passed = (now - state.before) / 1000;
    state.before = now;
    seek(state.step + (passed * Number(time.max)) / SECONDS);
    if (state.step >= Number(time.max)) setPlaying(false);
    else requestAnimationFrame(tick);
  };
  const setPlaying = (playing) => {
    state.playing = playing;
    play.textContent = playing ? "❚❚" : "▶";
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    if (!playing) return;
    if (state.step >= Number(time.max)) seek(0);
    state.before = performance.now();
    requestAnimationFrame(tick);
  };

  play.addEventListener("click", () => setPlaying(!state.playing));
  time.addEventListener("input", () => {
    setPlaying(false);
    seek(Number(time.value));
  });
  for (const field of Object.values(fields)) field.addEventListener("change", choose);
  fill(
    fields.policy,
    data.policies.map((name, i) => ({ value: i, text: name })),
  );
  fields.policy.value = String(data.policies.length - 1);
  new ResizeObserver(() => paintReplay(canvas, paths, state)).observe(canvas.parentElement);
  choose();
}

const modeKey = (paths, i) => (paths.success[i] ? String(paths.mode[i]) : "failed");

// Offers what the chosen method and seed have, with counts.
function offerChoices(fields, paths) {
  const policy = Number(fields.policy.value);
  fill(
    fields.seed,
    paths.groups.filter((group) => group.policy === policy).map(({ seed }) => ({ value: seed, text: String(seed) })),
  );
  const { members } = groupOf(paths, policy, Number(fields.seed.value));
  const count = (test) => members.filter(test).length;
  fill(fields.mode, [
    { value: "", text: `all (${members.length})` },
    ...data.modes.map((mode, i) => ({
      value: String(i),
      text: `${mode} (${count((k) => modeKey(paths, k) === String(i))})`,
    })),
    { value: "failed", text: `failed (${count((k) => !paths.success[k])})` },
  ]);
  const codes = [...new Set(members.map((i) => paths.code[i]))].sort((one, other) => one - other);
  fill(fields.code, [
    { value: "", text: codes.length > 1 ? "all" : "none" },
    ...(codes.length > 1 ? codes.map((code) => ({ value: String(code), text: String(code) })) : []),
  ]);
  fields.code.disabled = codes.length < 2;
}

function describeChoice(paths, state, fields) {
  const { members, group } = state;
  const name = data.policies[group.policy];
  const won = members.filter((i) => paths.success[i]).length;
  if (!members.length)
    return `${name}, seed ${group.seed}: none of its ${group.members.length} recorded episodes is like that.`;
  return `${name}, seed ${group.seed}: ${members.length} of ${group.members.length} recorded episodes, ${won} of them successes. ${group.recorded} were played in all.`;
}

function paintReplay(canvas, paths, state) {
  if (!state.group) return;
  const { context, width, height } = prepareCanvas(canvas, Math.max(1, planeAspect(paths, data.toScale)));
  const project = planeProjection(paths, data.toScale, width, height);
  paintGrid(context, project, paths, width, height);
  context.textAlign = "right";
  context.fillText(`${data.axes[0]} →`, width - 6, height - 20);
  context.textAlign = "left";
  context.fillText(`↑ ${data.axes[1]}`, 6, 14);
  const colours = modeColours(),
    failed = ink("failed");
  for (const i of state.members) {
    const share = Math.min(1, state.step / Math.max(1, paths.length[i]));
    const colour = paths.success[i] && paths.mode[i] >= 0 ? colours[paths.mode[i]] : failed;
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 1.4;
    context.globalAlpha = 0.55;
    const at = strokePath(context, project, paths, i, share);
    context.globalAlpha = 1;
    if (share < 1) paintDot(context, at, 2.6);
    else if (paths.success[i]) paintDot(context, at, 3.2);
    else paintCross(context, at, 3);
  }
  canvas.dataset.shown = `${state.members.length}@${Math.round(state.step)}`;
}
