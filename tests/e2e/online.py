"""Small online jobs: a model that was taught to answer wrongly four times in five, and is rewarded for the other answer.

Forty steps, a minute, take its mean reward from under 0.3 to over 0.9, so that a job that only ran, and did not
learn, is told from one that did. Not here: starting anything (`conftest`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anneal_api.meta import OWNER_UID_LABEL, ROLE_LABEL, ROLE_ROLLOUT
from anneal_trainer.quickstart import model as quickstart_model
from e2e.harness import Kube, small_job
from trainer.teaching import ROWS, teach

STEPS = 40
SMALL = {"name": "small", "pattern": {"pattern": "[a-z]+"}}
_TRAINING = {
    "maxSteps": STEPS,
    "globalBatchSize": 64,
    "microBatchSize": 64,
    "learningRate": 5e-3,
    "lrScheduler": "linear",
}
# A server for each: a tiny model, and the cache of keys and values beside it.
SERVERS = {"mode": "server", "cpu": "100m", "memory": "4Gi"}
GENERATE = {"mode": "generate"}
LOW, HIGH = 0.35, 0.85


def make_taught(directory: Path) -> None:
    """Write `directory/model` and `directory/prompts.jsonl`; the same files every time."""
    texts = [f"{row['prompt']}{row['answer']} {row['answer'].upper()}" for row in ROWS]
    # vLLM's attention on CPUs knows heads of 32 and more.
    quickstart_model.build(texts, directory / "model", vocabulary=512, width=64, heads=2)
    teach(directory / "model", directory / "model")
    (directory / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))


def online_job(name: str, rollout: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A GRPO job on the seeded claim; blocks as for `small_job`."""
    training = _TRAINING | spec.pop("training", {})
    given: dict[str, Any] = {
        "method": "grpo",
        "model": {"source": "volume://runs/taught/model"},
        "datasets": [{"source": "volume://runs/taught/prompts.jsonl"}],
        "rewards": [SMALL],
        "sampling": {"maxTokens": 6},
        "grpo": {"numGenerations": 8},
        "adapter": {"r": 16, "alpha": 32},
        "rollout": rollout,
        **spec,
    }
    return {**small_job(name, training=training, **given), "kind": "RLHFJob"}


def at_the_end(rewards: Sequence[float]) -> float:
    """The mean of the last steps: one step has the answers to eight prompts."""
    return sum(rewards[-5:]) / 5


def servers(kube: Kube, job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods of a job that draw answers and are there now."""
    return kube.objects("pods", f"{OWNER_UID_LABEL}={job['metadata']['uid']},{ROLE_LABEL}={ROLE_ROLLOUT}")


def starts(pod: dict[str, Any], container: str) -> int:
    """How often a container of a pod was started again."""
    statuses = pod["status"].get("containerStatuses", [])
    return next((each["restartCount"] for each in statuses if each["name"] == container), 0)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod's Service has it."""
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
