"""`spec.runPolicy`: how long, how often, and whether a job runs. The only part of a spec that can always change."""

from pydantic import Field

from anneal_api.base import Block, ObjectName


class RunPolicy(Block):
    """Retries, limits and suspension."""

    suspend: bool = Field(
        default=False,
        description="Save a checkpoint, give back every resource and wait; false again resumes at that step.",
    )
    max_retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="Attempts after the first that an infrastructure failure may cost. Evictions and node losses are not counted.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="The most seconds of training over all attempts; time in suspension does not count.",
    )
    scheduling_timeout_seconds: int = Field(
        default=900,
        ge=10,
        le=31_536_000,
        description="How long some of the job's pods may hold GPUs while others find no place. Then all of them are given back and the job tries again later, each time after a longer wait.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=31_536_000,
        description="Seconds after the end when the job's pods and other children are removed. The job itself, its status and its storage stay.",
    )


class SecretRef(Block):
    """A Secret whose keys become environment variables of the pods (HF_TOKEN, AWS_ACCESS_KEY_ID, …)."""

    name: ObjectName = Field(description="Its name, in the job's own namespace. Only the kubelet reads it.")
