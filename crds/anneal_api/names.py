"""Names derived from a job: pure, deterministic, and legal for every kind of child.

A FineTuneJob's name may have dots and 253 characters; a PyTorchJob's may have neither (its pods append
`-worker-0` and are DNS-1035 labels). The owner's UID in the name keeps a job that was deleted and created again,
or one of the other kind with the same name, from ever sharing a child.
"""

import hashlib
import re

_NAME_LENGTH = 30
_UID_LENGTH = 5


def sanitized(name: str, *, length: int = _NAME_LENGTH) -> str:
    """`name` as a DNS-1035 label of at most `length` characters.

    >>> sanitized("Llama.3-8b"), sanitized("8b.chat")
    ('llama-3-8b', 'j8b-chat')
    """
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if not label or not label[0].isalpha():
        label = f"j{label}"
    return label[:length].rstrip("-")


def uid5(uid: str) -> str:
    """Five hex digits of an owner's UID (of its digest, so that sequential UIDs differ)."""
    return hashlib.sha256(uid.encode()).hexdigest()[:_UID_LENGTH]


def base_name(name: str, uid: str) -> str:
    """The common stem of a job's children: 36 characters at most."""
    return f"{sanitized(name)}-{uid5(uid)}"


def attempt_name(name: str, uid: str, attempt: int) -> str:
    """The PyTorchJob of attempt `attempt` (1 is the first)."""
    return f"{base_name(name, uid)}-{attempt}"


def prepare_name(name: str, uid: str, key: str) -> str:
    """The prepare Job for one prepare key: an edit before the first attempt makes another Job."""
    return f"{base_name(name, uid)}-prep-{key[:6]}"


def preview_name(name: str, uid: str, digest: str) -> str:
    """The ConfigMap with the preview of one content: data that is prepared anew gets another one."""
    return f"{base_name(name, uid)}-preview-{digest[:6]}"


def rollout_name(name: str, uid: str) -> str:
    """The Deployment of the servers that draw answers, and their headless Service."""
    return f"{base_name(name, uid)}-rollout"


def run_directory(name: str, uid: str) -> str:
    """Where a job's checkpoints, logs and (by default) output are, below its storage."""
    return f"runs/{base_name(name, uid)}"


def owner_label(name: str) -> str:
    """A label value for people to select by; the UID label is what Anneal itself selects by."""
    return sanitized(name, length=63)
