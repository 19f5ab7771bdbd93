"""A job's status for people: what happens now first, then why, then the details. Pure; `now` is an argument.

It shows what the operator recorded and computes nothing of its own but times, so it says the same for a job that ended
long ago as for one that runs.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from anneal_api.status import Attempt, Condition, JobStatus, MemoryReport, QueueReport
from anneal_cli.columns import age, count, duration, pairs, table, timestamp
from anneal_cli.data_view import data_lines
from anneal_cli.rewards_view import completion_lines, reward_lines, rollout_lines

JOB_COLUMNS = ("NAME", "METHOD", "PHASE", "STEP", "LOSS", "REWARD", "ETA", "GPUS", "AGE", "MESSAGE")
_REWARD = JOB_COLUMNS.index("REWARD")
_CONDITION_COLUMNS = ("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")
_ATTEMPT_COLUMNS = ("ATTEMPT", "OUTCOME", "TIME", "STEPS", "EXIT", "NODE", "MESSAGE")


def jobs_table(jobs: Sequence[dict[str, Any]], now: datetime, *, with_namespace: bool) -> list[str]:
    """All jobs, a line each; rewards where there are some."""
    header: tuple[str, ...] = ("NAMESPACE", *JOB_COLUMNS) if with_namespace else JOB_COLUMNS
    rows = [_job_row(job, now) for job in jobs]
    if not any(row[_REWARD] for row in rows):
        header = tuple(name for name in header if name != JOB_COLUMNS[_REWARD])
        rows = [row[:_REWARD] + row[_REWARD + 1 :] for row in rows]
    if with_namespace:
        rows = [(job["metadata"].get("namespace"), *row) for job, row in zip(jobs, rows, strict=True)]
    return table(header, rows)


def _job_row(job: dict[str, Any], now: datetime) -> tuple[object, ...]:
    status, metadata = JobStatus.model_validate(job.get("status") or {}), job["metadata"]
    progress = status.progress
    return (
        metadata["name"],
        job["spec"].get("method"),
        status.phase,
        progress and progress.steps,
        progress and progress.loss_text,
        progress and progress.reward_text,
        progress and progress.eta,
        status.gpus,
        age(metadata.get("creationTimestamp"), now),
        (status.message or "").partition("\n")[0],
    )


def job_lines(job: dict[str, Any], now: datetime) -> list[str]:
    """One job in full."""
    status = JobStatus.model_validate(job.get("status") or {})
    sections = (
        _summary(job, status, now),
        _progress(status, now),
        _measured(status),
        _answers(status),
        completion_lines(status.progress) if status.progress else [],
        _conditions(status.conditions, now),
        _attempts(status.attempts, now),
        data_lines(status.dataset) if status.dataset else [],
        _results(job, status),
    )
    lines: list[str] = []
    for section in sections:
        if section:
            lines += [*section, ""]
    return lines[:-1]


def _summary(job: dict[str, Any], status: JobStatus, now: datetime) -> list[str]:
    metadata = job["metadata"]
    head = [f"{metadata.get('namespace')}/{metadata['name']}: {status.phase or 'not seen by the operator yet'}"]
    if status.message:
        head.append(f"  {status.message}")
    if 0 < status.observed_generation < metadata.get("generation", 0):
        head.append("  The manifest has changed since; the operator has not looked at the change yet.")
    gpus = None if status.gpus is None else f"{status.gpus}{f' (pool {status.pool})' if status.pool else ''}"
    facts = pairs([
        ("Age", age(metadata.get("creationTimestamp"), now)),
        ("Model", job["spec"]["model"]["source"]),
        *_origins(status),
        ("Method", job["spec"].get("method")),
        ("GPUs", gpus),
        ("Queue", status.queue and _queue(status.queue, now)),
        ("GPU-hours", count(status.gpu_hours) if status.gpus else None),
        ("Device", status.device),
        ("Memory", status.memory and _memory(status.memory)),
    ])  # fmt: skip
    return [*head, "", *facts]


def _memory(memory: MemoryReport) -> str | None:
    """What was estimated, what there is, and what was measured."""
    said = []
    if memory.estimated_gib is not None:
        aside = f" without {' and '.join(memory.missing)}" if memory.missing else ""
        has = f", of {memory.gpu_gib:.1f} GiB a GPU" if memory.gpu_gib else ""
        said.append(f"{memory.estimated_gib:.1f} GiB estimated{aside}{has}")
    if memory.fits is False:
        said.append("does not fit")
    if memory.tuned:
        said.append(f"microBatchSize {memory.micro_batch_size} was chosen")
    if memory.peak_gib:
        said.append(f"peak {memory.peak_gib:.1f} GiB")
    return "; ".join(said) or None


def _queue(queue: QueueReport, now: datetime) -> str:
    """Where the job stands in its queue, and for how long."""
    if queue.since is None:
        return queue.name
    long = age(queue.since, now)
    if queue.quota_reserved:
        flavors = ", ".join(dict.fromkeys(queue.flavors.values()))
        return f"{queue.name} ({queue.cluster_queue}{f', {flavors}' if flavors else ''}), with quota for {long}"
    place = f", place {queue.position}" if queue.position else ""
    behind = f", behind {', '.join(queue.ahead)}" if queue.ahead else ""
    return f"{queue.name}, waiting for {long}{place}{behind}"


def _progress(status: JobStatus, now: datetime) -> list[str]:
    progress = status.progress
    if progress is None:
        return []
    percent = "" if progress.percent is None else f" ({progress.percent:.0f}%)"
    return pairs([
        ("Progress", f"{progress.steps or f'{progress.step}/{progress.total_steps}'}{percent}"),
        ("Epoch", count(progress.epoch)),
        ("Reward", progress.reward_text),
        ("Loss", progress.loss_text or count(progress.loss)),
        ("Holdout loss", count(progress.eval_loss)),
        ("Learning rate", None if progress.learning_rate is None else f"{progress.learning_rate:.2e}"),
        ("Tokens/s", count(progress.tokens_per_second)),
        ("Time left", progress.eta),
        ("Last report", progress.last_report_time and f"{age(progress.last_report_time, now)} ago"),
    ])  # fmt: skip


def _measured(status: JobStatus) -> list[str]:
    """What the method measures, a name a line: of the last step, and of the holdout where that was measured.

    Of rewards, servers and times there are lines of their own.
    """
    found = status.progress.metrics if status.progress else {}
    rewards, rollout = reward_lines(found), rollout_lines(found)
    others = {name: value for name, value in found.items() if name not in rewards.names | rollout.names}
    names = list(dict.fromkeys(name.removeprefix("eval_") for name in others))
    rows = [(name, count(others.get(name)), count(others.get(f"eval_{name}"))) for name in names]
    metrics = table(("METRIC", "STEP", "HOLDOUT"), rows) if rows else []
    sections = [lines for lines in (rewards.lines, rollout.lines, metrics) if lines]
    return [line for lines in sections for line in (*lines, "")][:-1]


def _answers(status: JobStatus) -> list[str]:
    """The latest answers to the job's sample prompts."""
    samples = status.progress.samples if status.progress else []
    return pairs([(f"At step {each.step}", f"{each.prompt} → {each.answer}") for each in samples])


def _origins(status: JobStatus) -> Iterator[tuple[str, object]]:
    """What the job:// sources stand for."""
    for pin in status.sources:
        merged = "".join(f" + {adapter.uri}" for adapter in pin.adapters)
        yield "", f"{pin.source} is {pin.base}{merged}"


def _conditions(conditions: Sequence[Condition], now: datetime) -> list[str]:
    rows = [(c.type, c.status, c.reason, age(c.last_transition_time, now), c.message) for c in conditions]
    return table(_CONDITION_COLUMNS, rows) if rows else []


def _attempts(attempts: Sequence[Attempt], now: datetime) -> list[str]:
    rows = [
        (a.number, a.outcome or "running", _ran(a, now), _steps(a), a.exit_code, a.node, a.message) for a in attempts
    ]
    return table(_ATTEMPT_COLUMNS, rows) if rows else []


def _ran(attempt: Attempt, now: datetime) -> str:
    start = timestamp(attempt.running_time or attempt.start_time)
    end = timestamp(attempt.end_time) or now
    return duration((end - start).total_seconds()) if start else ""


def _steps(attempt: Attempt) -> str:
    if attempt.last_step is None and attempt.resumed_from_step is None:
        return ""
    return f"{attempt.resumed_from_step or 0}-{'' if attempt.last_step is None else attempt.last_step}"


def _results(job: dict[str, Any], status: JobStatus) -> list[str]:
    outputs = (_output(output.kind, output.uri) for output in status.outputs)
    return pairs([*outputs, *_preview(job, status), *_log(job, status)])


def _output(kind: str, uri: str) -> tuple[str, object]:
    return kind.capitalize(), uri


def _preview(job: dict[str, Any], status: JobStatus) -> Iterator[tuple[str, object]]:
    """How to see the first rows token by token, for which no command of ours is needed."""
    if status.children and status.children.preview:
        place = f"-n {job['metadata'].get('namespace')} {status.children.preview}"
        yield "Preview", f"kubectl get configmap {place} -o jsonpath='{{.data.preview\\.txt}}' (or preview\\.html)"


def _log(job: dict[str, Any], status: JobStatus) -> Iterator[tuple[str, object]]:
    """How to read the last attempt's output."""
    if not status.attempts:
        return
    metadata = job["metadata"]
    yield "Log", f"anneal logs {metadata['name']} -n {metadata.get('namespace')}"
    yield "Log file", status.attempts[-1].log
