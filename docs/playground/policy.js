// A policy as `bmd-pipeline export` wrote it, run by onnxruntime-web: what run_policy.py does on a robot.

import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send

export class Policy {
  static async load(folder) {
    const [facts, session] = await Promise.all([
      fetch(`${folder}/policy.json`).then((answer) => answer.json()),
      ort.InferenceSession.create(`${folder}/policy.onnx`),
    ]);
    return new Policy(facts, session);
  }

  constructor(facts, session) {
    Object.assign(this, { facts, session });
    this.reset(0);
  }

  /** Begins an episode under a code. */
  reset(code) {
    Object.assign(this, { code, history: [], queue: [] });
  }

  /** The code of a mode by name, or undefined. */
  findCode(name) {
    return this.facts.modes.find((mode) => mode.name === name)?.code;
  }

  /** The next action for an observation; call it once per control step. */
  async act(obs) {
    const { n_obs_steps, obs_stride, n_action_steps } = this.facts;
    const span = (n_obs_steps - 1) * obs_stride + 1;
    while (this.history.length < span - 1) this.history.push(obs); // the first one stands for those before
    this.history.push(obs);
    this.history = this.history.slice(-span);
    if (!this.queue.length) this.queue = (await this.plan()).slice(0, n_action_steps);
    return this.queue.shift();
  }

  async plan() {
    const { n_obs_steps, obs_stride, obs_dim, noise_dim, horizon, action_dim } = this.facts;
    const frames = Array.from({ length: n_obs_steps }, (_, k) => [...this.history[this.history.length - 1 - k * obs_stride]]);
    const inputs = {
      obs: new ort.Tensor("float32", Float32Array.from(frames.flat()), [1, n_obs_steps, obs_dim]),
      code: new ort.Tensor("int64", BigInt64Array.from([BigInt(this.code)]), [1]),
      noise: new ort.Tensor("float32", Float32Array.from({ length: noise_dim }, normal), [1, noise_dim]),
    };
    const { actions } = await this.session.run(inputs);
    return Array.from({ length: horizon }, (_, k) => [...actions.data.slice(k * action_dim, (k + 1) * action_dim)]);
  }
}

/** A standard normal number (Box and Muller). */
export const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
