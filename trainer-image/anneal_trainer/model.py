"""The tokenizer and the model that a spec names: loaded once, from a directory, with the cause told if it fails.

`check_files` needs neither torch nor the weights' bytes, so that `prepare` finds a broken model on a CPU. What is
trained is always kept in fp32; frozen weights are kept in `training.precision` or quantized. Not here: fetching
(`hub`) and merging (`merge`).
"""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anneal_api.job import JobSpec
from anneal_api.model import ModelSource, ModelSpec
from anneal_api.sources import local_path, parse_source
from anneal_trainer import hub, quiet_libraries
from anneal_trainer.context import Context
from anneal_trainer.data.formats.chat.template import Renderer
from anneal_trainer.errors import ConfigError, InputError


@dataclass(frozen=True)
class Head:
    """What stands on the model in place of its language head: how many numbers it says, of a text or of each token."""

    suffix: str
    outputs: int
    task: str


HEADS = {
    "reward": Head("ForSequenceClassification", 1, "SEQ_CLS"),
    "prm": Head("ForTokenClassification", 2, "TOKEN_CLS"),
}
_UNNAMED_LABELS = 2
_HEAD_NAMES = ("score", "classifier")

# What shapes tokens. Weights are not among them: training may continue on data prepared before they changed.
TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)

# Beside an adapter, so that data can be looked at without its base. Under the name of config.json, the libraries would
# take the directory for a whole model.
BASE_CONFIG = "base_config.json"


def directory(named: ModelSource, context: Context) -> Path:
    """Where a model's files are; one of the hub, or of adapters that are merged, is where `prepare` put it."""
    return context.file.directory(named, context.volumes)


def tokenizer_directory(named: ModelSource, context: Context) -> Path:
    """A directory with at least the model's tokenizer and config: all that data needs, without fetching weights."""
    match parse_source(named.source).scheme:
        case "hf":
            return hub.fetch_tokenizer(named)
        case "job":
            pin = context.file.pin(named.source)
            path = local_path(pin.adapters[-1].uri if pin.adapters else pin.base, context.volumes)
        case _:
            path = local_path(named.source, context.volumes)
    if not _config_file(path).is_file():
        raise InputError(f"{named}: there is no config.json in it, so it is not a model's directory")
    return path


def config_of(path: Path) -> dict[str, Any]:
    """The config of a model, or of the base of an adapter."""
    found: dict[str, Any] = json.loads(_config_file(path).read_text(encoding="utf-8"))
    return found


def _config_file(path: Path) -> Path:
    beside_adapter = path / BASE_CONFIG
    return beside_adapter if beside_adapter.is_file() else path / "config.json"


def check_files(path: Path, named: ModelSource) -> None:
    """InputError, naming the source, the file and the cause, if the directory is not a model that can be loaded."""
    if not path.is_dir():
        raise InputError(f"{named}: there is no such directory")
    if not (path / "config.json").is_file():
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise InputError(f"{named}: config.json is missing; the directory holds {held}")
    _read_config(path / "config.json", named)
    for file in weight_files(path, named):
        _check_weights(file, named)


def check_head(path: Path, named: ModelSource, method: str) -> None:
    """InputError if the model's head is not one that the method can start from, as far as its config tells."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    classes = [str(name) for name in config.get("architectures") or []]
    scores = [name for name in classes if name.endswith(("ForSequenceClassification", "ForTokenClassification"))]
    head = HEADS.get(method)
    if head is None and scores:
        raise InputError(
            f"{named}: it is a {scores[0]}, which scores texts; method {method} needs a model that writes them"
        )
    if head is None or not scores:
        return
    # The library leaves the names of two labels out of the file.
    outputs = len(config.get("id2label") or range(_UNNAMED_LABELS))
    if not scores[0].endswith(head.suffix) or outputs != head.outputs:
        raise InputError(
            f"{named}: it is a {scores[0]} with {outputs} outputs, where method {method} trains a "
            f"{head.suffix} with {head.outputs}; write a language model, or one that this method made"
        )


def _read_config(file: Path, named: ModelSource) -> None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{named}: config.json is not JSON: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{named}: config.json names no model_type, so it is not a transformers model")


def weight_files(path: Path, named: ModelSource) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{named}: {index.name} cannot be read: {error!r}") from error
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(f"{named}: {', '.join(missing)} is missing; weights must be in the safetensors format")
    return [path / name for name in names]


def weights_header(file: Path) -> tuple[int, dict[str, Any]]:
    """The length of a safetensors file's header, and what it says of each tensor."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(min(length, file.stat().st_size)))
    return length, {name: entry for name, entry in header.items() if name != "__metadata__"}


def _check_weights(file: Path, named: ModelSource) -> None:
    """The header of a safetensors file names every tensor and where its bytes end; a cut download ends before."""
    try:
        length, tensors = weights_header(file)
        ends = [entry["data_offsets"][1] for entry in tensors.values()]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{named}: {file.name} is not a safetensors file: broken header") from error
    expected, found = 8 + length + max(ends, default=0), file.stat().st_size
    if expected != found:
        raise InputError(f"{named}: {file.name} has {found} bytes where its header says {expected}: fetch it again")


def load_tokenizer(model: ModelSpec, path: Path, *, field: str = "model.source") -> Any:
    """The tokenizer, with added special tokens and the template that the spec asks for."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the library raises many kinds, and a broken file can raise any
        raise InputError(f"{field} {model.source}: the tokenizer does not load: {error}") from error
    if not tokenizer.is_fast:
        raise InputError(
            f"{field} {model.source}: the tokenizer has no tokenizer.json (the fast form), which is needed"
        )
    if model.add_special_tokens:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(model.add_special_tokens)}, replace_extra_special_tokens=False
        )
    # Kept, as an entry of `datasets` may ask for it by name.
    tokenizer.own_chat_template = tokenizer.chat_template
    if model.chat_template != "auto":
        tokenizer.chat_template = renderer(model, tokenizer).named(model.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def renderer(model: ModelSpec, tokenizer: Any) -> Renderer:
    """What chat templates are rendered with, for a tokenizer of `load_tokenizer`."""
    return Renderer.of(tokenizer, own=tokenizer.own_chat_template, source=model.source)


def vocabulary(path: Path, tokenizer: Any) -> int:
    """The number of token ids that the model will know once its embeddings cover the tokenizer."""
    known = config_of(path)
    own = known.get("vocab_size") or known.get("text_config", {}).get("vocab_size") or 0
    return max(own, len(tokenizer))


@dataclass(frozen=True)
class Device:
    """What there is to compute on."""

    kind: str
    name: str
    bf16: bool


def rank() -> int:
    """Of this process among all that train together."""
    return int(os.environ.get("RANK", "0"))


def device() -> Device:
    """The device of this process."""
    import torch

    if torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False))
    return Device("cpu", "cpu", bf16=False)


def precision(spec: JobSpec, found: Device) -> str:
    """`auto` resolved: bf16 where a GPU has it."""
    if spec.training.precision == "auto":
        return "bf16" if found.bf16 else "fp32"
    return spec.training.precision


def load_model(spec: JobSpec, path: Path, tokenizer: Any, *, found: Device) -> Any:
    """The base model in the form it is trained from, with embeddings for every token.

    A head that the model does not bring is drawn from torch's dice, which the caller has seeded.
    """
    import torch
    from safetensors import SafetensorError

    check_files(path, spec.models[0])
    check_head(path, spec.models[0], spec.method)
    kind, labels = class_for(spec.method)
    quiet_libraries.hide_bars()
    half = precision(spec, found) == "bf16" and spec.adapter is not None
    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if half else torch.float32,
        "attn_implementation": _attention(spec.model, found),
        "local_files_only": True,
    }
    if spec.model.quantization != "none":
        options["quantization_config"] = _quantization(spec.model.quantization, half=half)
        options["device_map"] = {"": torch.cuda.current_device() if found.kind == "cuda" else "cpu"}
    try:
        model = kind.from_pretrained(path, **options, **labels)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        # A failing disk carries the kernel's number, and may come back; transformers' own complaints carry none.
        if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(f"model.source {spec.model.source}: the model does not load: {error}") from error
    if labels:
        # Its pooling looks for the last token that is not padding.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    cover(model, tokenizer)
    return model


def cover(model: Any, tokenizer: Any) -> None:
    """Give the model an embedding for every token."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        # From the mean of the old ones: a new row far from them all would dominate the first steps.
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        _start_from_mean(model, rows)


def class_for(method: str) -> tuple[Any, dict[str, int]]:
    """The library's class for a method's model, and what it must be told about its outputs."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

    head = HEADS.get(method)
    if head is None:
        return AutoModelForCausalLM, {}
    kind = AutoModelForSequenceClassification if method == "reward" else AutoModelForTokenClassification
    return kind, {"num_labels": head.outputs}


def switch_dropout_off(model: Any) -> None:
    """The base model's own: in its layers, and in attention, which keeps a number."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _start_from_mean(model: Any, rows: int) -> None:
    import torch

    tables = {
        id(table.weight): table.weight
        for table in (model.get_input_embeddings(), model.get_output_embeddings())
        if table is not None
    }
    with torch.no_grad():
        for weight in tables.values():
            weight[rows:] = weight[:rows].mean(dim=0)


def _attention(model: ModelSpec, found: Device) -> str:
    if model.attention != "auto":
        return model.attention
    from importlib.util import find_spec

    return "flash_attention_2" if found.bf16 and find_spec("flash_attn") else "sdpa"


def _quantization(kind: str, *, half: bool) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if half else torch.float32,
    )


def adapter_config(spec: JobSpec, tokenizer: Any, model: Any) -> Any:
    """PEFT's configuration; ConfigError if a target module is not in the model."""
    from peft import LoraConfig

    adapter = spec.adapter
    assert adapter is not None, "only asked for with an adapter"
    targets: str | list[str] = list(adapter.target_modules)
    if targets == ["all-linear"]:
        targets = "all-linear"
    else:
        _check_targets(adapter.target_modules, model)
    added = tokenizer.convert_tokens_to_ids(list(spec.model.add_special_tokens))
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        # With a task of scores PEFT trains and saves the new head whole; it is no layer for an adapter then.
        exclude_modules=list(_HEAD_NAMES) if spec.method in HEADS else None,
        task_type=HEADS[spec.method].task if spec.method in HEADS else "CAUSAL_LM",
        trainable_token_indices=_trainable_tokens(added, model),
    )


def _check_targets(targets: list[str], model: Any) -> None:
    import torch

    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    names = [name for name, _ in model.named_modules()]
    absent = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in names)]
    if absent:
        raise ConfigError(
            f"adapter.targetModules: {', '.join(absent)} is not in this model; "
            f"its linear layers are {', '.join(sorted(linear))}"
        )


def _trainable_tokens(tokens: list[int], model: Any) -> dict[str, list[int]] | None:
    """The embedding rows of added tokens, and the output rows too where they are a matrix of their own."""
    if not tokens:
        return None
    tables = [model.get_input_embeddings()]
    if not model.config.get_text_config().tie_word_embeddings:
        tables.append(model.get_output_embeddings())
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    return {names[id(table)]: tokens for table in tables}
