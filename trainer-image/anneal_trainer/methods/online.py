"""Answers are drawn, judged and learnt from: grpo and rloo, from prepared prompts to a trained adapter or model.

Before a step its answers are drawn; they serve `iterations` steps. Advantages are those of the whole step, on all
ranks. A stop waits for the last of those steps, since the next one begins with a draw: so a run that goes on from a
checkpoint draws, and learns, what it would have; exactly so with the library's generate.
Log-probabilities are at the sampling temperature; what top-p, top-k and min-p leave out is not taken off them.
Imported late: it needs torch and TRL. Not here: the formulas (`online_losses`), and what draws (`drawing`).
"""

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from trl.trainer.utils import add_fused_lm_head

from anneal_api.model import ModelSource
from anneal_api.online import RewardSource, SamplingSpec
from anneal_api.online_rules import DRAWN_A_MICRO_BATCH, block_of
from anneal_api.rlhfjob import RLHFSpec
from anneal_api.words import counted
from anneal_trainer import console, model, rewards
from anneal_trainer.completions import Completions
from anneal_trainer.context import Context
from anneal_trainer.methods import asked, loop, rounds
from anneal_trainer.methods.answers import base_of
from anneal_trainer.methods.asked import Answer, Told
from anneal_trainer.methods.drawing import Chance, OwnModel, Sampler, Servers
from anneal_trainer.methods.generating import Generator
from anneal_trainer.methods.losses import Loss
from anneal_trainer.methods.measured import Measured, Measures
from anneal_trainer.methods.objectives import Objective
from anneal_trainer.methods.online_losses import Answers, answer_divergence
from anneal_trainer.methods.reference import Reference, for_answers, without_dropout
from anneal_trainer.methods.sequences import SequenceCollator, answer_table, model_inputs
from anneal_trainer.methods.times import Times
from anneal_trainer.methods.trainer import LanguageTrainer
from anneal_trainer.order import AnswerOrder
from anneal_trainer.plan import Plan
from anneal_trainer.prepare import Ready
from anneal_trainer.reporter import Reporter
from anneal_trainer.result import Result
from anneal_trainer.rewards import Judged, Source
from anneal_trainer.rollout import where
from anneal_trainer.stop import Stop

# Seconds: the library's own.
_COLLECTIVES = 1800


@dataclass(frozen=True)
class Judges:
    """The rewards of a job, opened on the first rank, and the columns that they name."""

    sources: Sequence[Source]
    named: Sequence[str]


def run(context: Context, ready: Ready, *, reporter: Reporter, stop: Stop) -> Result:
    """Train, and say what came of it; StoppedError if it was asked to end before it was done."""
    spec = _spec(context)
    with ExitStack() as stack:
        sources = stack.enter_context(_opened(context, spec.rewards))
        judges = Judges(sources, asked.named_columns(spec.rewards))
        gpu = model.device().kind == "cuda"
        servers = where.opened(context, model=ready.model_path, stop=lambda: stop.requested, gpu=gpu)
        rollout = stack.enter_context(servers)

        def make(setup: loop.Setup) -> OnlineTrainer:
            return _trainer(setup, judges, rollout)

        return loop.run(context, ready, make=make, reporter=reporter, stop=stop)


def _spec(context: Context) -> RLHFSpec:
    assert isinstance(context.spec, RLHFSpec), "the method is of that kind"
    return context.spec


def _opened(context: Context, sources: Sequence[RewardSource]) -> AbstractContextManager[Sequence[Source]]:
    """The rewards on the first rank; nothing on others."""
    if model.rank() > 0:
        return nullcontext(())
    found = model.device()

    def place(index: int) -> ModelSource:
        return next(named for named in context.spec.judges if named.field == f"rewards[{index}].model.source")

    paths = {id(each.model): model.directory(place(i), context) for i, each in enumerate(sources) if each.model}
    places = rewards.Places(
        modules=context.reward_modules,
        files=context.reward_files,
        model=lambda reward: paths[id(reward)],
        environment=os.environ,
        device=found.kind,
        bf16=model.precision(context.spec, found) == "bf16",
    )
    return rewards.opened(sources, places)


def _trainer(setup: loop.Setup, judges: Judges, rollout: where.Rollout | None) -> "OnlineTrainer":
    spec = _spec(setup.context)
    assert spec.sampling is not None, "resolve() fills sampling"
    assert spec.rollout is not None, "resolve() fills rollout"
    if model.rank() == 0:
        _note_few(setup.plan, spec)
    base = setup.base_model(dropout=False)
    return OnlineTrainer(
        objective=Objective(block_of(spec), spec.sampling.max_tokens, spec.rollout.importance_cap),
        sampling=spec.sampling,
        rollout=rollout,
        behind=spec.rollout.max_staleness,
        judges=judges,
        completions=Completions(setup.context.layout.samples, setup.resumed_from),
        reference=for_answers(setup, temperature=spec.sampling.temperature),
        collate=setup.collator(base),
        data_collator=_rows,
        **setup.language_options(
            base,
            remove_unused_columns=False,
            ddp_timeout=patience(spec, servers=rollout is not None),
        ),
    )


def _note_few(plan: Plan, spec: RLHFSpec) -> None:
    """That one step asks some prompts more than once."""
    assert isinstance(plan.order, AnswerOrder), "the plan of an online method has one"
    asks, there = plan.order.prompts.batch, plan.order.prompts.sequences
    if there < asks:
        console.say(
            f"note: the data has {counted(there, 'prompt')}, and a step draws answers to {asks} "
            f"(training.globalBatchSize {plan.order.batch} over {spec.method}.numGenerations {plan.order.group}): some "
            "are asked more than once in a step; add prompts, or lower globalBatchSize"
        )


def patience(spec: RLHFSpec, *, servers: bool) -> int:
    """Seconds that a collective may take: in one, others wait for a rank's servers, or for the first one's rewards."""
    assert spec.rollout is not None, "resolve() fills rollout"
    waits = spec.rollout.start_timeout_seconds if servers else 0
    return _COLLECTIVES + waits + math.ceil(asked.longest_call(spec.rewards))


def _rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A loader's micro batch: prompts, which are not a batch yet."""
    return {"rows": rows}


class OnlineTrainer(Measured, LanguageTrainer):
    """`reference` is None where nothing is compared with one, `rollout` where the model draws for itself.

    `behind`: the most steps that what draws may be older than what learns.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        sampling: SamplingSpec,
        rollout: where.Rollout | None,
        behind: int,
        judges: Judges,
        completions: Completions,
        reference: Reference | None,
        collate: SequenceCollator,
        **options: Any,
    ) -> None:
        self._objective, self._judges, self._behind = objective, judges, behind
        self._completions, self._reference, self._collate = completions, reference, collate
        self._draw: int | None = None
        self._parts: list[dict[str, Any]] = []
        self._told: dict[str, float] = {}
        self._times = Times()
        self._counted = 1
        super().__init__(**options)
        add_fused_lm_head(base_of(self.model), temperature=sampling.temperature, outputs=("log_probs", "entropy"))
        self._sampler = self._made_sampler(sampling, rollout)

    def _made_sampler(self, sampling: SamplingSpec, rollout: where.Rollout | None) -> Sampler:
        if rollout is None:
            most = DRAWN_A_MICRO_BATCH * self.args.per_device_train_batch_size
            return OwnModel(Generator(self.model, self.processing_class, sampling, at_once=most))
        world, rank = self.args.world_size, self.args.process_index
        return Servers(rollout, self.model, self.processing_class, sampling, world=world, rank=rank)

    # A draw ------------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: Any) -> Any:
        """The library has put the micro batches of a step together: what is in them is drawn here."""
        self._times.begin()
        draw = self._answer_order.draw(self.state.global_step)
        if draw != self._draw:
            self._parts = self._drawn([row for batch in batch_samples for row in batch["rows"]], draw)
            self._draw = draw
        batch_samples[:] = self._parts
        found = super()._get_num_items_in_batch(batch_samples, device)
        self.seconds_before_step = sum(self._times.told.values())
        return found

    @property
    def _answer_order(self) -> AnswerOrder:
        assert isinstance(self._order, AnswerOrder), "the plan of an online method has one"
        return self._order

    @property
    def may_stop(self) -> bool:
        """At a step before a draw."""
        return int(self.state.global_step) % self._answer_order.iterations == 0

    @property
    def step_rows(self) -> int:
        """The answers that count."""
        return self._counted

    def _drawn(self, rows: list[dict[str, Any]], draw: int) -> list[dict[str, Any]]:
        """The micro batches of this rank's share of a draw."""
        with self._times.of("sync"):
            self._sampler.follow(self.state.global_step, behind=self._behind)
        with self._times.of("generate"):
            own = self._answered(rows, draw)
        with self._times.of("wait"):
            told = rounds.of_all(self.args.world_size, [answer.told for answer in own])
        with self._times.of("reward"):
            found = self._judged(told)
        size = self.args.per_device_train_batch_size
        parts = [self._part(own[start : start + size]) for start in range(0, len(own), size)]
        values = torch.tensor(found.rewards, device=self.args.device)
        advantages = self._objective.advantages(values, self._divergences(parts))
        self._note(told, found, advantages, draw)
        counts = rounds.counted(found.rewards, told, self._objective)
        self._counted = max(1, sum(counts.averaged))
        self._share_out(parts, advantages, torch.tensor(counts.trained, device=self.args.device))
        return parts

    def _answered(self, rows: list[dict[str, Any]], draw: int) -> list[Answer]:
        group = self._answer_order.group
        prompts = rounds.whole_groups(rows, group)
        first = self.args.process_index * len(prompts)
        chance = Chance(self._answer_order.prompts.seed, draw, first)
        with self.accelerator.autocast():
            drawn = self._sampler.draw([row["input_ids"] for row in prompts], answers=group, chance=chance)
        return [Answer(row, each) for row, each in zip(rows, drawn, strict=True)]

    def _judged(self, told: Sequence[Told]) -> Judged:
        """What they are worth, in calls of a step's answers; other ranks wait for one call at a time."""
        size, world, rank = self._order.batch, self.args.world_size, self.args.process_index

        def ask(part: Sequence[Told]) -> Judged:
            return asked.judged(self._judges.sources, part, self._judges.named)

        parts = [told[start : start + size] for start in range(0, len(told), size)]
        return asked.joined([rounds.on_first(world, rank, partial(ask, part)) for part in parts])

    def _part(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """A micro batch, with what later steps compare with: those of the policy as it is and of the reference."""
        batch: dict[str, Any] = self._prepare_inputs(rounds.batch_of(answers, self._collate))
        if self._needs_old:
            batch["old"] = self._quietly(batch, without_dropout)
        if self._reference is not None:
            batch["reference"] = self._quietly(batch, self._reference)
        return batch

    @property
    def _needs_old(self) -> bool:
        """Whether the policy as it is must be computed apart: at a first step without dropout it is the policy."""
        first_is_all = self._answer_order.iterations == 1 and not self._objective.rewards_need_policy
        return not first_is_all or (self._sampler.apart and self._drops_out)

    @property
    def _drops_out(self) -> bool:
        return any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in self.model.modules())

    def _quietly(self, batch: dict[str, Any], use: Reference) -> Any:
        with torch.no_grad(), self.accelerator.autocast(), use(self.model) as policy:
            return self._log_probabilities(policy, batch)[0]

    def _divergences(self, parts: Sequence[dict[str, Any]]) -> Any:
        """Of all ranks' answers from the reference, where rewards need that."""
        if not self._objective.rewards_need_policy:
            return torch.zeros(self._order.batch, device=self.args.device)
        own = [answer_divergence(part["old"], part["reference"], _there(part)) for part in parts]
        return self.of_all_ranks(torch.cat(own))

    def _share_out(self, parts: Sequence[dict[str, Any]], advantages: Any, trained: Any) -> None:
        """Give each micro batch its answers' part of what all ranks know."""
        start = self.args.process_index * (self._order.batch // self.args.world_size)
        for part in parts:
            end = start + len(part["answer_lengths"])
            part["advantages"] = advantages[start:end]
            part["mask"] = _there(part) & trained[start:end, None]
            start = end

    def _note(self, told: Sequence[Told], found: Judged, advantages: Any, draw: int) -> None:
        """For metrics and for the file of answers."""
        self._told = asked.measured(told, found, group=self._answer_order.group)
        if not self.is_world_process_zero():
            return
        done = draw * self._answer_order.iterations
        self._told |= self._sampler.told(done, len(told))
        self._times.move(self._told.get("rollout/wait_seconds", 0.0), source="generate", target="wait")
        version = self._sampler.version(done)
        self._completions.add(
            [
                {
                    "step": done + 1,
                    "version": version,
                    "staleness": done - version,
                    "prompt": answer.prompt,
                    "completion": answer.text,
                    "reward": found.rewards[index],
                    "advantage": advantages[index].item(),
                    "tokens": answer.length,
                    "cut_off": answer.cut_off,
                    **{f"rewards/{name}": scores[index] for name, scores in found.scores.items()},
                }
                for index, answer in enumerate(told)
            ]
        )

    # A step ------------------------------------------------------------------------------------------------------

    def _log_probabilities(self, policy: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        """Of each token of the answers, `[answers, tokens]`, and the entropy there, which a reference does not say."""
        outputs = policy(**model_inputs(batch), labels=batch["labels"], use_cache=False, fused_lm_head=True)
        entropy = None if outputs.entropy is None else answer_table(outputs.entropy.float(), batch)
        return answer_table(outputs.log_probs.float(), batch), entropy

    def assessed(self, model: Any, batch: dict[str, Any]) -> tuple[Loss, Measures]:
        """The method's loss."""
        policy, entropy = self._log_probabilities(model, batch)
        answers = Answers(
            policy=policy,
            old=batch["old"] if "old" in batch else policy.detach(),
            mask=batch["mask"],
            advantages=batch["advantages"],
            reference=batch.get("reference"),
            sampler=batch.get("sampler"),
        )
        return self._objective.loss(answers), self._objective.measures(answers, entropy)

    def term_tokens(self, batch: dict[str, Any]) -> Any:
        """The answers' trained tokens."""
        return batch["mask"].sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With what was told of the answers."""
        super().log(logs | self._told | self._times.told if "loss" in logs else logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.is_world_process_zero():
            self._completions.write(self.state.global_step)
        super()._save_checkpoint(model, trial)

    # The holdout -------------------------------------------------------------------------------------------------

    def measured_rows(self) -> dict[str, float] | None:
        """The mean reward of the most likely answers, of the weights as they are; None if stopped."""
        rows, own = self.eval_dataset, list[tuple[int, Told]]()
        self._sampler.follow(self.state.global_step, behind=0)
        for numbers_of in self._own_rows(len(rows), self._sampler.at_once):
            if self.anyone_stops():
                return None
            part = [rows[number] for number in numbers_of]
            with self.accelerator.autocast():
                drawn = self._sampler.best([row["input_ids"] for row in part])
            answers = [Answer(row, each).told for row, each in zip(part, drawn, strict=True)]
            own += zip(numbers_of, answers, strict=True)
        told = [answer for _, answer in sorted(rounds.of_all(self.args.world_size, own), key=lambda each: each[0])]
        return asked.evaluated(told, self._judged(told))


def _there(part: dict[str, Any]) -> Any:
    """Whether each place of a table of tokens has one."""
    lengths = part["lengths"]
    return torch.arange(max(part["answer_lengths"]), device=lengths.device) < lengths[:, None]
