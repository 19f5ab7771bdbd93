"""The store: its own writes at once, no step back, and nothing that vanished unseen."""

from typing import Any

from anneal_operator.kinds import FINE_TUNE_JOB, JOB, POD, Obj
from anneal_operator.store import Key, Store
from simulated.builders import make_job, make_pod


def versioned(obj: Obj, version: int, **metadata: Any) -> Obj:
    """The same object at another resource version."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version), **metadata}}


def prepare_job(version: int = 7, uid: str = "child") -> Obj:
    """A child of the job `bot`."""
    labels = {"anneal.dev/owner-uid": "uid-bot"}
    return {
        "metadata": {"name": "prep", "namespace": "team", "uid": uid, "resourceVersion": str(version), "labels": labels}
    }


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """What the operator wrote itself survives the watch's delay; equal versions are no news."""
    store = Store()
    assert store.put(FINE_TUNE_JOB, versioned(make_job(), 20))
    assert not store.put(FINE_TUNE_JOB, versioned(make_job(), 9))
    assert not store.put(FINE_TUNE_JOB, versioned(make_job(), 20))
    job = store.job(Key(FINE_TUNE_JOB, "team", "bot"))
    assert job is not None
    assert job["metadata"]["resourceVersion"] == "20"


def test_a_deleted_child_stays_deleted_while_late_events_arrive() -> None:
    """Until its own DELETED event has passed; then the name may be used again."""
    store = Store()
    store.put(JOB, prepare_job(7))
    store.deleted(JOB, "team", "prep")
    assert not store.put(JOB, prepare_job(8))
    assert store.children("uid-bot", JOB) == []
    assert not store.removed(JOB, prepare_job(9))
    assert store.put(JOB, prepare_job(10, uid="other"))


def test_a_name_that_was_taken_over_belongs_to_the_new_object() -> None:
    """A job deleted and created again while the watch was away shares nothing with the old one."""
    store = Store()
    store.put(FINE_TUNE_JOB, versioned(make_job(), 5))
    store.put(JOB, prepare_job())
    store.put(FINE_TUNE_JOB, versioned(make_job(uid="again"), 30))
    assert store.key_of("uid-bot") is None
    assert store.key_of("again") == Key(FINE_TUNE_JOB, "team", "bot")
    assert store.children("again", JOB) == []


def test_what_a_new_list_lacks_has_vanished() -> None:
    """But not what is newer than the list: it was made after it."""
    store = Store()
    store.put(FINE_TUNE_JOB, make_job())
    store.put(POD, versioned(make_pod("old"), 5))
    store.put(POD, versioned(make_pod("new"), 50))
    missing = store.relisted(POD, [], 40)
    assert [obj["metadata"]["name"] for obj in missing] == ["old"]
    assert [pod["metadata"]["name"] for pod in store.children("uid-bot", POD)] == ["new"]


def test_a_vanished_pod_is_remembered_until_a_pass_has_seen_it() -> None:
    """Its last words say why the attempt ended."""
    store = Store()
    store.put(FINE_TUNE_JOB, make_job())
    last = versioned(make_pod(exit_code=75, message="{}"), 9)
    store.put(POD, make_pod())
    store.removed(POD, last)
    (departed,) = store.departed_pods("uid-bot")
    assert departed["status"]["phase"] == "Failed"
    store.seen_departed("uid-bot", [departed])
    assert store.departed_pods("uid-bot") == []


def test_a_job_that_goes_takes_everything_about_it_along() -> None:
    """No trace is left that could leak memory."""
    store = Store()
    store.put(FINE_TUNE_JOB, make_job())
    store.put(POD, make_pod())
    store.removed(POD, make_pod())
    store.removed(FINE_TUNE_JOB, make_job())
    assert not store._objects
    assert not store._children
    assert not store._departed
    assert not store._namespaces
    assert not store._neighbours


def test_heavy_parts_are_not_kept() -> None:
    """Managed fields and a copy of the manifest are most of an object's memory, and nobody reads them."""
    store = Store()
    job = make_job()
    job["metadata"] |= {
        "managedFields": [{}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"},
    }  # fmt: skip
    store.put(FINE_TUNE_JOB, job)
    kept = store.job(Key(FINE_TUNE_JOB, "team", "bot"))
    assert kept is not None
    assert kept["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" not in kept["metadata"]
