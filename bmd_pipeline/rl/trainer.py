"""Iterations of training: play, learn; how a killed run goes on, and what is done when numbers run away."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bmd_pipeline.config.schema import CurriculumConfig, FinetuneConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.errors import DivergenceError, TrainingError
from bmd_pipeline.io.progress import add_prefix, pack_optimizer, take_prefix, unpack_optimizer
from bmd_pipeline.modes.inference import (
    compute_intrinsic_reward,
    compute_log_ratio,
    compute_multimodality,
    make_optimizer,
    train_inference,
)
from bmd_pipeline.modes.regulariser import Regulariser
from bmd_pipeline.rl.adapters import ClonedDenoiser
from bmd_pipeline.rl.agent import Agent, load_trained, trained_state
from bmd_pipeline.rl.cloning import FilteredCloner
from bmd_pipeline.rl.graphs import GraphRecorder, graph_agent, make_ppo
from bmd_pipeline.rl.ppo import Batch, Critic, compute_continuation, compute_gae, standardise, standardise_groups
from bmd_pipeline.rl.rollout import (
    Rollout,
    average_codes,
    balanced_codes,
    compute_code_success,
    compute_obeyed_by_cluster,
    mean_by_code,
    read_behaviours,
    roll_out,
)

# ---- The short-to-long horizon curriculum ----
#
# Source: BMD (arXiv 2605.11387): the horizon grows from H_0 to T over the first iterations.


def compute_max_steps(config: CurriculumConfig, iteration: int, horizon: int) -> int:
    """Control steps of an episode at an iteration, counted from 0: linear from start_fraction·horizon to horizon."""
    progress = min(1.0, iteration / config.iterations)
    share = config.start_fraction + (1.0 - config.start_fraction) * progress
    return max(1, round(share * horizon))


# ---- Which codes are played ----

NEED_FLOOR = 0.1
"""Weight of a code that always succeeds in the draw of codes; one that always fails weighs this plus 1."""
EQUAL_SHARE = 0.25
"""Share of the environments that is shared out equally over codes before need decides."""
SUCCESS_SMOOTHING = 0.3
"""Weight of the newest rollout in the running success of a code."""


class CodeSampler:
    """Draws codes the more often the more they fail, so that no weak behaviour starves (ours)."""

    def __init__(self, num_codes: int) -> None:
        self.success = torch.full((num_codes,), 0.5)  # running success rate of each code, on the CPU

    def draw(self, num_envs: int, generator: torch.Generator) -> Tensor:
        """Codes (num_envs,), some of each and the rest in proportion to its failures."""
        num_codes = len(self.success)
        equal = torch.arange(num_codes).repeat(max(1, int(EQUAL_SHARE * num_envs / num_codes)))
        need = (1.0 - self.success + NEED_FLOOR).to(generator.device)
        rest = num_envs - len(equal)  # may be none, which multinomial refuses to draw
        drawn = torch.multinomial(need, max(1, rest), replacement=True, generator=generator)[:rest]
        return torch.cat([equal.to(generator.device), drawn])

    def update(self, success: Tensor, code: Tensor) -> None:
        """Takes a rollout into account: which of its episodes succeeded (N,), under which codes (N,)."""
        newest = mean_by_code(success, code, len(self.success)).float().cpu()
        self.success += SUCCESS_SMOOTHING * (newest - self.success)


# ---- What is learnt from a rollout ----


class ReinforcementLearner:
    """Rewards episodes, and learns from the rewards with PPO; its inference model learns beside it.

    In the published form the reward is r_env + λ·r_int (BMD, arXiv 2605.11387); during discovery it is r_int alone. In
    the coded form (ours) λ weighs standardised advantages, and each code may be a task of its own.

    Attributes:
        demand: share of each code's successes that shall show its own behaviour, where that is asked for.
    """

    def __init__(
        self, env: TaskEnv, agent: Agent, settings: FinetuneConfig, recorder: GraphRecorder | None = None
    ) -> None:
        self.spec = env.spec
        self.agent = agent
        self.regulariser_config = config = settings.regulariser
        self.balance_codes = agent.coded and settings.balance_codes
        self.pay_only_obeyed = agent.coded and settings.pay_only_obeyed
        self.inference = agent.modes.inference if agent.modes else None
        self.demand = settings.obedience if agent.coded else None
        self.regulariser = Regulariser(agent.num_codes, config.mi_weight if agent.modes else 0.0, self.demand)
        self.critic = Critic(
            agent.policy.cond_dim,
            env.spec.track_dim,
            agent.num_codes,
            num_streams=2 if agent.coded else 1,
            hidden_sizes=settings.ppo.value_hidden_sizes,
            sees_time=not env.spec.continuing,
        ).to(env.device)
        self.ppo = make_ppo(agent, self.critic, settings.ppo, recorder=recorder)
        self.optimizers: dict[str, Optimizer] = {"policy_optimizer": self.ppo.optimizer}
        self.inference_steps = 0
        if self.inference is not None:
            asked, usual = config.inference_steps, self.inference.config.steps_per_iteration
            self.inference_steps = (0 if agent.coded else usual) if asked is None else asked
            self.inference.requires_grad_(True)
            self.optimizers["inference_optimizer"] = make_optimizer(self.inference)

    def learn(
        self,
        played: Rollout,
        own: Tensor,
        generator: torch.Generator,
        *,
        intrinsic_only: bool,
        max_steps: int | None,
        policy: bool,
    ) -> dict[str, float]:
        """Updates λ, critic and policy, and the inference model where it goes on learning.

        Of the rollout `own` (N,) says which episodes show their code's behaviour; the rest, metrics and errors are as
        of `Trainer.learn`.
        """
        metrics = {}
        paid = own if self.pay_only_obeyed else torch.ones_like(own)
        if self.agent.modes is not None and not intrinsic_only:
            if policy:  # a policy that does not learn yet can't answer
                self.regulariser.update(own, played.success, played.code)
            metrics["modes/mi_weight"] = float(self.regulariser.weights.mean())
            metrics["modes/highest_mi_weight"] = float(self.regulariser.weights.max())
        # costs are paid in any case, or a disobedient episode would be a way out of them
        extrinsic = torch.where(paid, played.reward, played.reward.clamp(max=0.0))
        reward, measured = self._streams(played, extrinsic, intrinsic_only)
        metrics |= measured
        if not bool(torch.isfinite(reward).all()):
            raise TrainingError("an intrinsic reward is not finite: run `bmd-pipeline discover` again")
        batch = self._batch(played, reward, max_steps)
        metrics |= self.ppo.update(batch, generator, policy=policy)
        if self.inference is not None and self.inference_steps:
            histories = played.histories(self.inference)[1:]
            metrics["losses/inference"] = train_inference(
                self.inference,
                self.optimizers["inference_optimizer"],
                played.taken(histories),
                played.taken(played.code.expand_as(played.active_mask)),
                self.inference_steps,
                generator,
            )
        return metrics

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The critic with its scale; λ of the codes and what it follows from, and the weight of an entropy bonus."""
        return self.critic.state_dict(), {"regulariser": self.regulariser.state(), "temperature": self.ppo.temperature}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.critic.load_state_dict(tensors)
        self.regulariser.load_state(values["regulariser"])
        if self.ppo.target_entropy is not None:
            self.ppo.set_temperature(values["temperature"])

    @torch.no_grad()
    def _streams(self, played: Rollout, extrinsic: Tensor, intrinsic_only: bool) -> tuple[Tensor, dict[str, float]]:
        """Reward (T, N, num_streams) from the environment's (T, N), and what was measured on the way."""
        if self.inference is None:
            return extrinsic[..., None], {}
        log_q = self.inference.log_prob(played.histories(self.inference))
        log_ratio = compute_log_ratio(log_q, played.code)
        paid = log_ratio.clamp(min=self.regulariser_config.floor)
        # per step as published; telescoped (ours), so that ending an episode in success costs nothing
        intrinsic = compute_intrinsic_reward(paid, played.active_mask, "telescoped" if self.agent.coded else "per_step")
        if self.regulariser_config.success_only:
            intrinsic = intrinsic * played.success
        # what is measured has no floor: the mean would be no lower bound of the mutual information any more
        mean, last = compute_multimodality(log_ratio, played.active_mask)
        found = {
            "modes/information": mean,
            "modes/final_information": last,
            "modes/intrinsic_return": intrinsic.sum(dim=0),
        }
        # some codes may have been played more often than others: all count the same here
        measured = {name: average_codes(each, played.code, self.agent.num_codes) for name, each in found.items()}
        if intrinsic_only:
            extrinsic = torch.zeros_like(extrinsic)
        if self.critic.num_streams == 2:
            return torch.stack([extrinsic, intrinsic], dim=-1), measured
        weight = 1.0 if intrinsic_only else float(self.regulariser.weights[0])  # a constant, here
        return (extrinsic + weight * intrinsic)[..., None], measured

    @torch.no_grad()
    def _batch(self, played: Rollout, reward: Tensor, max_steps: int | None) -> Batch:
        horizon = self.spec.horizon
        limit = min(max_steps or horizon, horizon)
        self.critic.fit_scale(played.decision_track, played.active_mask, last=limit == horizon)
        decisions, cut = (-(-steps // self.agent.decision_steps) for steps in (horizon, limit))
        seen = self.critic.inputs(played.cond, played.decision_track, played.code, decisions, decisions - cut)
        value = self.critic(seen)
        nonterminal, bootstrap = compute_continuation(played.active_mask, played.truncated, self.spec.continuing)
        gamma, gae_lambda = self._discounts(reward, played.decisions_per_chunk)
        advantage, returns = compute_gae(reward, value, nonterminal, bootstrap, gamma, gae_lambda)
        inputs = played.policy_inputs()
        draws = {name: played.taken(drawn) for name, drawn in played.draws.items()}
        return Batch(
            inputs=inputs,
            draws=draws,
            critic_inputs=played.taken(seen[:-1]),
            log_prob=self.agent.evaluate(draws, inputs)[0],
            advantage=self._mix(played.taken(advantage), inputs.code),
            returns=played.taken(returns),
        )

    def _discounts(self, reward: Tensor, decisions_per_chunk: int) -> tuple[Tensor, Tensor]:
        """γ and λ of generalised advantage estimation for each stream, (num_streams,).

        Settings are per chunk; where it takes several decisions, each discounts by its share.
        """
        ppo, own = self.ppo.config, self.regulariser_config
        gamma = [ppo.gamma, ppo.gamma if own.gamma is None else own.gamma]
        gae_lambda = [ppo.gae_lambda, ppo.gae_lambda if own.gae_lambda is None else own.gae_lambda]
        streams, share = self.critic.num_streams, 1.0 / decisions_per_chunk
        return reward.new_tensor(gamma[:streams]) ** share, reward.new_tensor(gae_lambda[:streams]) ** share

    def _mix(self, advantage: Tensor, code: Tensor) -> Tensor:
        """One standardised advantage (M,) from that of each stream (M, num_streams), under codes (M,)."""
        if advantage.shape[1] == 1:
            return standardise(advantage[:, 0])
        group = code if self.balance_codes else torch.zeros_like(code)
        standard = standardise_groups(advantage, group, self.agent.num_codes)
        weight = self.regulariser.weights.to(code.device)[code]  # (M,) λ of each decision's code
        # divided by 1 + λ, so that the scale of a code's advantage does not depend on λ: λ only moves weight from the
        # task's reward to obedience
        return standardise((standard[:, 0] + weight * standard[:, 1]) / (1.0 + weight))


Learner = ReinforcementLearner | FilteredCloner
"""What a trainer learns by. Its `state` is what its next step depends on beside the agent and the optimizers."""


# ---- One iteration of training: play, learn, or roll back and learn again ----

MAX_ROLLBACKS = 3
"""Rollbacks after which training gives up: learning rates that are eight times too high are no accident."""
STEP_FACTOR = 0.5
"""What a rollback does to the learning rates, for good: steps that diverged once would do so again."""


class Trainer:
    """Plays an agent in a task and has its learner learn from what was played, iteration by iteration.

    Args:
        env: the task.
        agent: who is trained, by cloning if its last adapter is a cloned denoiser, else by reinforcement learning.
        settings: of fine-tuning; its iterations and selection are the caller's business.
        recorder: records decisions and gradients, as CUDA graphs are; None plays and learns kernel by kernel.
        warn: told of every rollback, and what `roll_out` warns of.
    """

    def __init__(
        self,
        env: TaskEnv,
        agent: Agent,
        settings: FinetuneConfig,
        *,
        recorder: GraphRecorder | None = None,
        warn: Callable[..., None] = lambda *texts: None,
    ) -> None:
        self.env = env
        self.agent = graph_agent(agent, recorder)
        self.code_sampler = CodeSampler(agent.num_codes) if agent.coded and settings.balance_codes else None
        self.pay_only_obeyed = agent.coded and settings.pay_only_obeyed
        self.learner: Learner
        if isinstance(last := agent.adapters[-1], ClonedDenoiser):
            self.learner = FilteredCloner(agent, last, settings)
        else:
            self.learner = ReinforcementLearner(env, agent, settings, recorder)
        self._warn = warn
        self.rollbacks = 0
        self.remember()

    def remember(self) -> None:
        """Takes the present state as the last good one, to which a diverged iteration is rolled back."""
        self.before = pack_trainer(self)

    def iterate(
        self,
        *,
        iteration: int,
        seed: int,
        generator: torch.Generator,
        intrinsic_only: bool = False,
        max_steps: int | None = None,
        policy: bool = True,
    ) -> dict[str, float]:
        """Plays one rollout and learns from it; arguments and metrics as in `play` and `learn`.

        What diverges is rolled back to the remembered state and learnt again with half the learning rates.

        Raises:
            TrainingError: an intrinsic reward is not finite, or the update diverges after all rollbacks.
            TaskError: what the task shows can't be used, as of `roll_out`.
        """
        played = self.play(iteration=iteration, seed=seed, generator=generator, max_steps=max_steps)
        draws = generator.get_state()
        while True:  # the episodes stand: only what was learnt from them is tried again
            generator.set_state(draws)
            try:
                metrics = self.learn(
                    played, generator=generator, intrinsic_only=intrinsic_only, max_steps=max_steps, policy=policy
                )
                self._require_finite(metrics)
                return metrics
            except DivergenceError as error:
                self._roll_back(iteration, str(error))

    def _require_finite(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name.startswith("losses/") and not math.isfinite(value):
                raise DivergenceError(f"{name} is {value}")
        groups = [group for optimizer in self.learner.optimizers.values() for group in optimizer.param_groups]
        if not all(bool(torch.isfinite(weight).all()) for group in groups for weight in group["params"]):
            raise DivergenceError("a weight is not finite")

    def _roll_back(self, iteration: int, reason: str) -> None:
        unpack_trainer(self, *self.before)
        if self.rollbacks >= MAX_ROLLBACKS:
            raise TrainingError(
                f"training diverged at iteration {iteration + 1}: {reason}; {self.rollbacks} rollbacks, each with half "
                "the learning rates, did not help: lower finetune.ppo.learning_rate, or that of the method"
            )
        self.rollbacks += 1
        for optimizer in self.learner.optimizers.values():
            for group in optimizer.param_groups:
                for name in {"lr", "initial_lr"} & group.keys():  # initial_lr: what a schedule may rise to
                    group[name] *= STEP_FACTOR
        self.remember()
        self._warn(
            f"iteration {iteration + 1} diverged ({reason}) and was rolled back; the learning rates are halved "
            f"(rollback {self.rollbacks} of at most {MAX_ROLLBACKS})"
        )

    def play(self, *, iteration: int, seed: int, generator: torch.Generator, max_steps: int | None = None) -> Rollout:
        """Plays one exploring episode in every environment, as of `roll_out`; schedules count iterations from 0."""
        for adapter in self.agent.adapters:
            adapter.begin_iteration(iteration)
        count, sampler = self.env.num_envs, self.code_sampler
        code = sampler.draw(count, generator) if sampler else balanced_codes(count, self.agent.num_codes, generator)
        return roll_out(
            self.env,
            self.agent,
            seed=seed,
            code=code,
            generator=generator,
            explore=True,
            max_steps=max_steps,
            keep_draws=True,
            warn=self._warn,
        )

    def learn(
        self,
        played: Rollout,
        *,
        generator: torch.Generator,
        intrinsic_only: bool = False,
        max_steps: int | None = None,
        policy: bool = True,
    ) -> dict[str, float]:
        """Learns from a rollout that the present parameters played.

        Args:
            played: what `play` returned.
            generator: all draws.
            intrinsic_only: leave the environment's reward out (discovery).
            max_steps: what `play` was told.
            policy: whether a policy that has a critic learns too; False leaves it alone.

        Returns:
            metrics by name.

        Raises:
            DivergenceError: what is learnt diverges.
            TrainingError: an intrinsic reward is not finite.
        """
        metrics = {
            "rollout/success_rate": average_codes(played.success, played.code, self.agent.num_codes),
            "rollout/episode_return": float(played.reward.sum(dim=0).mean()),
            "rollout/episode_length": float(played.length.float().mean()),
            "rollout/control_steps": float(played.length.sum()),
            "rollout/dropped_episodes": float(played.dropped.sum()),
            "rollout/obs_reach": float(played.reach.max()),
        }
        own = torch.ones_like(played.success)  # (N,) whether each episode shows its code's behaviour
        if self.agent.modes is not None:
            shown = read_behaviours(self.agent.modes, played)
            own = shown == played.code
            metrics["modes/obeyed"] = float(compute_obeyed_by_cluster(shown, played, self.agent.num_codes).mean())
            metrics["modes/lowest_success"] = float(compute_code_success(played, self.agent.num_codes).min())
        metrics |= self.learner.learn(
            played, own, generator, intrinsic_only=intrinsic_only, max_steps=max_steps, policy=policy
        )
        if self.code_sampler is not None:
            paid = own if self.pay_only_obeyed else torch.ones_like(own)
            self.code_sampler.update(played.success & paid, played.code)
        return metrics


# ---- Everything that a trainer's next iteration depends on, as tensors and JSON values ----


def pack_trainer(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies a trainer's state: agent, optimizers with their learning rates, success of the codes, and whatever else
    its learner goes on from.

    Generators and curriculum are not part of it: both are made anew from the number of the iteration.
    """
    own, values = trainer.learner.state()
    tensors = add_prefix("agent", trained_state(trainer.agent)) | add_prefix("learner", own)
    for name, optimizer in trainer.learner.optimizers.items():
        moments, values[name] = pack_optimizer(optimizer)
        tensors |= add_prefix(name, moments)
    if trainer.code_sampler is not None:
        tensors["code_success"] = trainer.code_sampler.success
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, values


def unpack_trainer(trainer: Trainer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Puts back what `pack_trainer` took from a trainer of the same settings."""
    load_trained(trainer.agent, take_prefix("agent", tensors))
    trainer.learner.load_state(take_prefix("learner", tensors), values)
    for name, optimizer in trainer.learner.optimizers.items():
        unpack_optimizer(optimizer, take_prefix(name, tensors), values[name])
    if trainer.code_sampler is not None:
        trainer.code_sampler.success.copy_(tensors["code_success"])
