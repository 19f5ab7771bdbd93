"""Names that the operator, the trainer and the chart must agree on: group, labels, mounts, ports.

Nothing here is computed; what is derived from a job's name is in `names`.
"""

from typing import Final

GROUP: Final = "anneal.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "anneal.dev/v1alpha1"
CATEGORIES: Final = ("anneal", "all")

FIELD_MANAGER: Final = "anneal"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "anneal"
# Label values: an owner's UID finds its children whatever the owner is called.
OWNER_UID_LABEL: Final = f"{GROUP}/owner-uid"
OWNER_KIND_LABEL: Final = f"{GROUP}/owner-kind"
# The name label holds the sanitised name (63 characters at most); the annotation holds the real one.
JOB_NAME_LABEL: Final = f"{GROUP}/job-name"
OWNER_NAME_ANNOTATION: Final = f"{GROUP}/owner-name"
ROLE_LABEL: Final = f"{GROUP}/role"
ROLE_PREPARE: Final = "prepare"
ROLE_TRAINER: Final = "trainer"
ROLE_ROLLOUT: Final = "rollout"
ATTEMPT_LABEL: Final = f"{GROUP}/attempt"
PREPARE_KEY_ANNOTATION: Final = f"{GROUP}/prepare-key"

# In every pod: the resolved job, and one directory a claim, so that `volume://CLAIM/PATH`
# is `VOLUMES_DIR/CLAIM/PATH` whether the claim is the job's storage or only a source.
CONFIG_DIR: Final = "/anneal/config"
JOB_FILE: Final = "job.json"
VOLUMES_DIR: Final = "/anneal/volumes"
# One directory a ConfigMap with functions that judge answers.
REWARDS_DIR: Final = "/anneal/rewards"
SCRATCH_DIR: Final = "/tmp"

PROGRESS_PORT: Final = 8790
RENDEZVOUS_PORT: Final = 29400
# Of rollout pods: vLLM itself, and what loads adapters into it.
VLLM_PORT: Final = 8000
LOADER_PORT: Final = 8791
# In rollout pods: adapters that were fetched, shared by the two containers; one directory a version.
ADAPTERS_DIR: Final = "/anneal/adapters"
# What vLLM calls the model without an adapter.
BASE_MODEL: Final = "base"

# Environment of trainer pods, beside the PET_* variables that torchrun reads.
ENV_ATTEMPT: Final = "ANNEAL_ATTEMPT"
ENV_MICRO_BATCH_SIZE: Final = "ANNEAL_MICRO_BATCH_SIZE"
ENV_GRADIENT_CHECKPOINTING: Final = "ANNEAL_GRADIENT_CHECKPOINTING"
ENV_GRACE_SECONDS: Final = "ANNEAL_GRACE_SECONDS"
# The headless Service whose addresses are the rollout servers.
ENV_ROLLOUT_HOST: Final = "ANNEAL_ROLLOUT_HOST"
# A Python that has vLLM: of colocated servers and of `anneal run`. Default: the trainer's own, if it has it.
ENV_VLLM_PYTHON: Final = "ANNEAL_VLLM_PYTHON"
ENV_POD_NAME: Final = "ANNEAL_POD_NAME"

TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT: Final = 4096  # bytes: the kubelet cuts what is longer
GRACE_SECONDS: Final = 120  # from SIGTERM to SIGKILL: a checkpoint must fit
