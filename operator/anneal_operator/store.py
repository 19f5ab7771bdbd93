"""What the operator knows of the cluster: watched objects, plus what it has just written itself.

A watch lags behind. If a pass trusted it alone, it could make a second child before it hears of the first. So every
answer to a write is stored at once, older versions that the watch still delivers are ignored, and a deleted object
stays deleted until its last event has passed. Resource versions of one kind are comparable numbers.

A pod that vanished keeps its last state here until a pass has looked at it: its termination message says why it ended.
Not here: waiting, requests, decisions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from anneal_api.meta import OWNER_UID_LABEL
from anneal_operator.kinds import JOB_KINDS, POD, WATCHED, Kind, Obj, kind_of, labels_of, meta, name_of, uid_of
from anneal_operator.neighbours import Neighbour, neighbour

_Place = tuple[Kind, str, str]  # kind, namespace and name


class Key(NamedTuple):
    """Where a job is: the same name may stand for one of each kind."""

    kind: Kind
    namespace: str
    name: str


def key_of(job: Obj) -> Key:
    """The key of a job."""
    return Key(kind_of(job), str(meta(job).get("namespace", "")), name_of(job))


_HEAVY_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


def version_of(obj: Obj) -> int:
    """The resource version as a number; 0 for what has none."""
    text = str(meta(obj).get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def owner_uid(obj: Obj) -> str:
    """The UID of the job that an object was made for."""
    return labels_of(obj).get(OWNER_UID_LABEL, "")


def slim(kind: Kind, obj: Obj) -> Obj:
    """The object without what nobody here reads: most of its memory."""
    metadata = {key: value for key, value in meta(obj).items() if key != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _HEAVY_ANNOTATION}
    thin = {**obj, "metadata": metadata}
    if kind == POD:
        thin["spec"] = {"nodeName": (obj.get("spec") or {}).get("nodeName")}
    return thin


@dataclass
class Store:
    """Objects by place, jobs by UID, children by their owner's UID."""

    _objects: dict[_Place, Obj] = field(default_factory=dict)
    _children: dict[str, set[_Place]] = field(default_factory=lambda: defaultdict(set))
    _jobs: dict[str, Key] = field(default_factory=dict)
    _namespaces: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _neighbours: dict[str, Neighbour] = field(default_factory=dict)
    # UIDs that are known to be gone; a late event must not bring them back.
    _gone: set[str] = field(default_factory=set)
    # Pods that ended and vanished, by owner, until a pass has seen them.
    _departed: dict[str, dict[str, Obj]] = field(default_factory=lambda: defaultdict(dict))

    def get(self, kind: Kind, namespace: str, name: str) -> Obj | None:
        """An object, if it is known."""
        return self._objects.get((kind, namespace, name))

    def job(self, key: Key) -> Obj | None:
        """A job of either kind."""
        return self.get(*key)

    def key_of(self, uid: str) -> Key | None:
        """Where the job with this UID is."""
        return self._jobs.get(uid)

    def job_keys(self) -> Iterator[Key]:
        """All jobs."""
        return iter(list(self._jobs.values()))

    def neighbours(self, namespace: str) -> tuple[Neighbour, ...]:
        """What the jobs of a namespace need to know of each other."""
        return tuple(self._neighbours[uid] for uid in self._namespaces.get(namespace, ()))

    def neighbour(self, uid: str) -> Neighbour | None:
        """The same of one job."""
        return self._neighbours.get(uid)

    def children(self, uid: str, kind: Kind) -> list[Obj]:
        """The children of one kind, by name."""
        places = sorted(place for place in self._children.get(uid, ()) if place[0] == kind)
        return [self._objects[place] for place in places]

    def departed_pods(self, uid: str) -> list[Obj]:
        """Pods of a job that vanished since the last pass that looked."""
        return list(self._departed.get(uid, {}).values())

    def seen_departed(self, uid: str, pods: Iterable[Obj]) -> None:
        """Forget vanished pods that a finished pass has taken into account."""
        left = self._departed.get(uid, {})
        for pod in pods:
            left.pop(uid_of(pod), None)

    def put(self, kind: Kind, obj: Obj) -> bool:
        """Take a version in; False if it brings nothing new."""
        uid, place = uid_of(obj), self._place(kind, obj)
        if uid in self._gone:
            return False
        known = self._objects.get(place)
        if known is not None and uid_of(known) == uid and version_of(known) >= version_of(obj):
            return False
        if known is not None and uid_of(known) != uid:
            self._drop(place, known)
        self._objects[place] = slim(kind, obj)
        if kind in JOB_KINDS:
            self._jobs[uid] = Key(*place)
            self._namespaces[place[1]].add(uid)
            self._neighbours[uid] = neighbour(obj)
        elif owner := owner_uid(obj):
            self._children[owner].add(place)
        return True

    def removed(self, kind: Kind, obj: Obj) -> bool:
        """The watch said that an object is gone for good; False if that was known."""
        uid, place = uid_of(obj), self._place(kind, obj)
        was_known = uid in self._gone
        self._gone.discard(uid)
        if kind == POD and (owner := owner_uid(obj)) in self._jobs:
            self._departed[owner][uid] = slim(kind, obj)
        known = self._objects.get(place)
        if known is None or uid_of(known) != uid:
            return kind == POD or not was_known
        self._drop(place, known)
        return True

    def deleted(self, kind: Kind, namespace: str, name: str) -> None:
        """A delete of ours succeeded: gone now, whatever the watch still says."""
        known = self._objects.get((kind, namespace, name))
        if known is None:
            return
        self._drop((kind, namespace, name), known)
        if kind in WATCHED:
            self._gone.add(uid_of(known))

    def relisted(self, kind: Kind, listed: Iterable[Obj], version: int) -> list[Obj]:
        """A watch started over: what the list lacks and is older than the list vanished unseen."""
        present = {uid_of(obj) for obj in listed}
        missing = [
            obj
            for place, obj in list(self._objects.items())
            if place[0] == kind and uid_of(obj) not in present and version_of(obj) <= version
        ]
        for obj in missing:
            self.removed(kind, obj)
        return missing

    def _place(self, kind: Kind, obj: Obj) -> _Place:
        return kind, str(meta(obj).get("namespace", "")), name_of(obj)

    def _drop(self, place: _Place, obj: Obj) -> None:
        del self._objects[place]
        if place[0] in JOB_KINDS:
            self._forget_job(uid_of(obj), place[1])
            return
        owner = owner_uid(obj)
        self._children[owner].discard(place)
        if not self._children[owner]:
            del self._children[owner]

    def _forget_job(self, uid: str, namespace: str) -> None:
        self._jobs.pop(uid, None)
        self._departed.pop(uid, None)
        self._neighbours.pop(uid, None)
        self._namespaces[namespace].discard(uid)
        if not self._namespaces[namespace]:
            del self._namespaces[namespace]
        # Unwatched children (ConfigMaps, policies) go with their owner by garbage collection: nobody will tell.
        for place in [place for place in self._children.get(uid, ()) if place[0] not in WATCHED]:
            self._drop(place, self._objects[place])
