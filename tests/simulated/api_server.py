"""An API server in memory that keeps the rules which the operator relies on.

Names are taken, status writes are guarded by resource version and deletes by UID, owners take their children with
them, and a watch delivers every version in order. It counts requests, and can be told to end the world after any
effect. Objects are never changed in place, so nothing is copied. Not here: schemas (the real server tests them) and anything that acts by itself (`machinery`).
"""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from anneal_operator.errors import AlreadyExistsError, ConflictError, NotFoundError
from anneal_operator.kinds import EVENT, NODE, Kind, Obj, format_time, kind_of, meta, name_of, uid_of

Place = tuple[Kind, str, str]


class CrashError(BaseException):
    """The operator's process dies here. Not an Exception: nothing in it may catch this."""


@dataclass
class ApiServer:
    """Implements the methods of `cluster.Cluster`."""

    clock: Callable[[], datetime]
    objects: dict[Place, Obj] = field(default_factory=dict)
    watch: list[tuple[str, Kind, Obj]] = field(default_factory=list)
    created: list[Place] = field(default_factory=list)
    events: list[Obj] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unknown_kinds: set[Kind] = field(default_factory=set)
    effects: int = 0
    crash_after: int | None = None
    nodes_error: Exception | None = None
    refuse: Callable[[Obj], Exception | None] = lambda _obj: None
    _numbers: Any = field(default_factory=lambda: itertools.count(10))

    # What the operator calls.

    async def create(self, obj: Obj) -> Obj:
        self.calls["create"] += 1
        kind = kind_of(obj)
        if kind == EVENT:
            self.events.append(obj)
            return obj
        if kind in self.unknown_kinds:
            raise NotFoundError(404, "", "404 page not found")
        if error := self.refuse(obj):
            raise error
        if self._place(kind, obj) in self.objects:
            raise AlreadyExistsError(409, "AlreadyExists", f"{name_of(obj)} already exists")
        made = self.insert(obj)
        self.created.append(self._place(kind, made))
        self._effect()
        return made

    async def apply(self, obj: Obj, *, uid: str) -> Obj:
        self.calls["apply"] += 1
        known = await self.get(kind_of(obj), meta(obj)["namespace"], name_of(obj))
        if uid_of(known) != uid:
            raise ConflictError(409, "Conflict", "uid mismatch")
        # Maps are merged one level deep, which is as deep as anything here is applied.
        parts = {key: value for key, value in obj.items() if key != "metadata"}
        merged = self.update({**known, **{key: _merged(known.get(key), value) for key, value in parts.items()}})
        self._effect()
        return merged

    async def get(self, kind: Kind, namespace: str, name: str) -> Obj:
        self.calls["get"] += 1
        found = self.objects.get((kind, namespace, name))
        if kind in self.unknown_kinds:
            raise NotFoundError(404, "", "404 page not found")
        if found is None:
            raise NotFoundError(404, "NotFound", f"{name} not found")
        return found

    async def list_all(self, kind: Kind, namespace: str = "", *, fields: str = "") -> list[Obj]:
        self.calls["list"] += 1
        del fields
        if kind in self.unknown_kinds:
            raise NotFoundError(404, "", "404 page not found")
        places = [place for place in self.objects if place[0] == kind and (not namespace or place[1] == namespace)]
        return [self.objects[place] for place in places]

    async def list_nodes(self) -> list[Obj]:
        self.calls["list nodes"] += 1
        if self.nodes_error:
            raise self.nodes_error
        return self.of(NODE)

    async def delete(self, kind: Kind, obj: Obj) -> Obj:
        self.calls["delete"] += 1
        known = self.objects.get(self._place(kind, obj))
        if known is None:
            raise NotFoundError(404, "NotFound", f"{name_of(obj)} not found")
        if uid_of(known) != uid_of(obj):
            raise ConflictError(409, "Conflict", "the UID in the precondition does not match")
        self.remove(kind, known)
        self._effect()
        return {"kind": "Status", "status": "Success"}

    async def replace_status(self, kind: Kind, obj: Obj) -> Obj:
        self.calls["status"] += 1
        if error := self.refuse(obj):
            raise error
        known = self.objects.get(self._place(kind, obj))
        if known is None or uid_of(known) != uid_of(obj):
            raise NotFoundError(404, "NotFound", f"{name_of(obj)} not found")
        if meta(known)["resourceVersion"] != meta(obj)["resourceVersion"]:
            raise ConflictError(409, "Conflict", "the object has been modified")
        written = self.update({**known, "status": obj["status"]})
        self._effect()
        return written

    def _effect(self) -> None:
        self.effects += 1
        if self.effects == self.crash_after:
            raise CrashError

    # What everybody else does to it.

    def insert(self, obj: Obj) -> Obj:
        """Store a new object."""
        number = next(self._numbers)
        metadata = {
            "uid": f"uid-{number}",
            "creationTimestamp": format_time(self.clock()),
            **meta(obj),
            "resourceVersion": str(number),
        }
        made = {**obj, "metadata": metadata}
        self.objects[self._place(kind_of(made), made)] = made
        self._tell("ADDED", made)
        return made

    def update(self, obj: Obj) -> Obj:
        """Store a new version."""
        made = {**obj, "metadata": {**meta(obj), "resourceVersion": str(next(self._numbers))}}
        self.objects[self._place(kind_of(made), made)] = made
        self._tell("MODIFIED", made)
        return made

    def remove(self, kind: Kind, obj: Obj) -> None:
        """Remove an object. Running pods get their time to end; `machinery` collects what it owned."""
        known = self.objects[self._place(kind, obj)]
        if kind.plural == "pods" and (known.get("status") or {}).get("phase") in {"Pending", "Running"}:
            if not meta(known).get("deletionTimestamp"):
                stamp = format_time(self.clock())
                self.update({**known, "metadata": {**meta(known), "deletionTimestamp": stamp}})
            return
        self.vanish(kind, known)

    def vanish(self, kind: Kind, obj: Obj) -> None:
        """Remove an object for good."""
        gone = self.objects.pop(self._place(kind, obj))
        metadata = {**meta(gone), "resourceVersion": str(next(self._numbers))}
        self._tell("DELETED", {**gone, "metadata": metadata})

    def of(self, kind: Kind) -> list[Obj]:
        """All objects of a kind."""
        return [obj for place, obj in self.objects.items() if place[0] == kind]

    def _tell(self, event: str, obj: Obj) -> None:
        # Stored objects are never changed in place, so the watch can hold them as they are.
        self.watch.append((event, kind_of(obj), obj))

    def _place(self, kind: Kind, obj: Obj) -> Place:
        return kind, meta(obj).get("namespace", ""), name_of(obj)


def _merged(old: Any, new: Any) -> Any:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new
