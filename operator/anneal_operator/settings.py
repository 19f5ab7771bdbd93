"""What the Helm chart decides for the whole operator, read once at start from a YAML file.

The file is parsed strictly, with every problem at once: a misspelt pool must not become an operator without pools.
Not here: anything about one job, and Helm's own values that only shape the Deployment.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from anneal_api.base import Block, LabelName, Quantity
from anneal_api.compute import GpuType
from anneal_api.problems import problems_of
from anneal_api.rollout import RolloutSpec
from anneal_operator.affinity import Affinity
from anneal_operator.errors import SettingsError

DEFAULT_PATH = "/etc/anneal/settings.yaml"
DEFAULT_POOL = "default"


def _extra_resources(resources: dict[str, str]) -> dict[str, str]:
    """Resources of devices, in whole numbers, and huge pages: the rest of a pod's resources is the job's."""
    for name, amount in resources.items():
        if not re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9._-]+|hugepages-[0-9]+[KMG]i", name):
            raise ValueError(
                f"{name} is not a resource of a device, like rdma/hca, or of huge pages, like hugepages-2Mi"
            )
        if "/" in name and not amount.isdigit():
            raise ValueError(f"{name}: {amount} is not a whole number, as devices are counted")
    return resources


ExtraResources = Annotated[dict[str, Quantity], AfterValidator(_extra_resources)]


class Pool(Block):
    """Nodes of one kind, by name."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    affinity: Affinity | None = Field(default=None, description="Beside what the operator sets itself.")
    resource_name: str = Field(default="nvidia.com/gpu", description="Empty: a development pool without GPUs.")
    extra_resources: ExtraResources = Field(default_factory=dict, description="Of each pod that asks for GPUs.")
    gpu_type: GpuType | None = Field(default=None, description="The product, for jobs that ask for one.")
    gpus_per_node: int | None = Field(default=None, ge=1)
    nodes: int | None = Field(default=None, ge=1, description="The most that it can have, also later.")
    memory_gib: Annotated[float | None, Field(alias="memoryGiB", gt=0)] = None
    zones: list[str] = Field(default_factory=list)


def _supported(image: str) -> str:
    """One whose tag says that it is of another version would fail every job that draws answers."""
    try:
        RolloutSpec.model_validate({"image": image})
    except ValidationError as error:
        raise ValueError(f"{image}: {problems_of(error, RolloutSpec)[0].message}") from None
    return image


class StorageSettings(Block):
    """The claim that is made for a job that names none."""

    default_class: str = Field(default="", description="Empty: the cluster's default StorageClass.")
    size: Quantity = "100Gi"
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]] = Field(
        default=["ReadWriteOnce"], min_length=1
    )


class LabelSelector(Block):
    """Kubernetes' matchLabels."""

    match_labels: dict[str, str] = Field(default_factory=dict)


class Monitoring(Block):
    """Who may scrape the progress port beside the operator."""

    namespace_selector: LabelSelector = Field(default_factory=LabelSelector)
    pod_selector: LabelSelector = Field(default_factory=LabelSelector)


class Settings(Block):
    """The whole file."""

    trainer_image: str = Field(min_length=1)
    operator_image: str = Field(min_length=1, description="The operator's own: what loads adapters beside a server.")
    rollout_image: Annotated[str, AfterValidator(_supported)] = Field(
        min_length=1, description="vLLM's, for jobs that name none."
    )
    colocate_image: str = Field(
        default="", description="A trainer's with vLLM, for mode: colocate. Empty: the trainer's has it."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    pools: dict[LabelName, Pool] = Field(default_factory=dict)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    progress_interval_seconds: float = Field(default=10, gt=0)
    monitoring: Monitoring | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # From the environment, never from the file: where the operator itself runs.
    namespace: str = Field(default="anneal-system", exclude=True)


def parse_settings(text: str, *, namespace: str, where: str = "settings") -> Settings:
    """The settings in a YAML text; SettingsError names every problem."""
    try:
        document = yaml.safe_load(text)
        if not isinstance(document, dict):
            raise SettingsError(f"{where}: expected a mapping, got {type(document).__name__}")
        if "namespace" in document:
            raise SettingsError(f"{where}: namespace: comes from POD_NAMESPACE, remove it")
        return Settings.model_validate(document | {"namespace": namespace})
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not YAML: {error}") from error
    except ValidationError as error:
        lines = (f"{where}: {problem}" for problem in problems_of(error, Settings))
        raise SettingsError("\n".join(lines)) from error


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that ANNEAL_SETTINGS names."""
    path = Path(environment.get("ANNEAL_SETTINGS", DEFAULT_PATH))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; set ANNEAL_SETTINGS to the settings file") from error
    return parse_settings(text, namespace=environment.get("POD_NAMESPACE", "anneal-system"), where=str(path))
