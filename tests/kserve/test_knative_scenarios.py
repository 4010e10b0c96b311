"""What people do to a service in Knative mode, beyond what was recorded; each outcome is that of KServe's source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sandbox.kserve import collection, revisionstatus
from sandbox.kserve.collection import Retention, collect
from sandbox.kserve.knative import Document, child_name
from sandbox.kserve.runtimes import Runtime
from tests.kserve.replay import CRASH, World, flat, inference_service

HOUR_S = 3600.0
DENIED = (
    "fails to reconcile predictor: fails to reconcile knative service: "
    'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: '
)


@dataclass
class Service:
    """An InferenceService `m` that is changed step by step, in a world where servers answer at once unless told."""

    world: World = field(default_factory=World)
    step: dict[str, Any] = field(default_factory=lambda: {"version": "1", "server": "good", "annotations": {}})
    predictor: Document = field(default_factory=dict)
    name: str = "m"

    @property
    def document(self) -> Document:
        made = inference_service(self.step, self.world.status)
        made["metadata"]["name"] = self.name
        made["spec"]["predictor"] |= self.predictor
        return made

    def apply(self, starting: bool = False, **changes: Any) -> dict[str, str]:
        """Change version, percent (None takes it away), annotations; what the status says then."""
        self.step = {key: value for key, value in (self.step | changes).items() if value is not None}
        self.world.now += 1
        self.world.reconcile(self.document)
        for name in [] if starting else list(self.world.starting()):
            if self.step["server"] == "good":
                self.world.answer(self.document, name)
            else:
                self.world.answer(self.document, name, state="backing off", ready=False, failure=CRASH)
        return flat(self.world.status)

    @property
    def revisions(self) -> list[str]:
        return [revision.name for revision in self.world.known["predictor"].revisions]


def test_a_first_deployment_with_a_percentage_splits_between_it_and_itself() -> None:
    state = Service().apply(percent=30)
    assert state["traffic"] == "30 % m-predictor-00001 (latest), 70 % m-predictor-00001 prev"
    assert (state["Ready"], state["latestRolledoutRevision"]) == ("True", "m-predictor-00001")
    assert "previousRolledoutRevision" not in state


def test_a_second_rollback_finds_nothing_further_back() -> None:
    service = Service()
    service.apply()
    service.apply(version="2")
    service.apply(version="3")
    assert service.apply(percent=0)["traffic"] == "0 % m-predictor-00003 (latest), 100 % m-predictor-00002 prev"
    state = service.apply(percent=0)
    assert state["traffic"] == "0 % m-predictor-00003 (latest), 100 % m-predictor-00002 prev"
    assert state["latestRolledoutRevision"] == state["previousRolledoutRevision"] == "m-predictor-00002"
    # Forward again, and back: still the one before, not the one before that.
    service.apply(percent=None)
    assert service.apply(percent=0)["traffic"] == "0 % m-predictor-00003 (latest), 100 % m-predictor-00002 prev"


@pytest.mark.parametrize(
    ("percent", "told"),
    [
        (400, "Traffic targets sum to 400, want 100: spec.traffic\nexpected 0 <= 400 <= 100: spec.traffic[0].percent"),
        (
            -5,
            "expected 0 <= -5 <= 100: spec.traffic[0].percent\nexpected 0 <= 105 <= 100: spec.traffic[1].percent",
        ),
    ],
)
def test_a_percentage_out_of_range_leaves_everything_until_it_is_in_range(percent: int, told: str) -> None:
    service = Service()
    service.apply()
    state = service.apply(version="2", percent=percent)
    assert state["PredictorReady"] == state["Ready"] == f"False ReconcileFailed: {DENIED}{told}"
    assert (state["traffic"], service.revisions) == ("100 % m-predictor-00001 (latest)", ["m-predictor-00001"])
    state = service.apply(percent=10)
    assert state["traffic"] == "10 % m-predictor-00002 (latest), 90 % m-predictor-00001 prev"
    assert state["Ready"] == "True"


def test_a_first_deployment_with_an_impossible_percentage_serves_before_it_is_refused() -> None:
    state = Service().apply(percent=400)
    assert (state["traffic"], state["latestRolledoutRevision"]) == (
        "100 % m-predictor-00001 (latest)",
        "m-predictor-00001",
    )
    assert state["PredictorReady"].startswith("False ReconcileFailed")


def test_a_service_stopped_during_a_canary_has_forgotten_it_when_it_resumes() -> None:
    service = Service()
    service.apply()
    service.apply(version="2", percent=10)
    stopped = service.apply(annotations={"serving.kserve.io/stop": "true"})
    assert stopped == {
        "IngressReady": "False Stopped",
        "PredictorReady": "False Stopped",
        "Ready": "False Stopped",
        "Stopped": "True",
    }
    assert (service.world.servers, service.world.known) == ({}, {})
    starting = service.apply(annotations={"serving.kserve.io/stop": "false"}, starting=True)
    assert (starting["Stopped"], starting["Ready"]) == ("False", "False Stopped")
    resumed = service.apply()
    assert resumed["traffic"] == "10 % m-predictor-00001 (latest), 90 % m-predictor-00001 prev"
    assert (resumed["Ready"], service.revisions) == ("True", ["m-predictor-00001"])


def test_a_service_created_stopped_runs_nothing() -> None:
    service = Service()
    state = service.apply(annotations={"serving.kserve.io/stop": "TRUE"})
    assert (state["Stopped"], service.world.servers) == ("True", {})


@pytest.mark.parametrize("place", ["service", "predictor"])
def test_tag_routing_from_creation_tags_the_latest_revision(place: str) -> None:
    wanted = {"serving.kserve.io/enable-tag-routing": "true"}
    service = Service(predictor={"annotations": wanted} if place == "predictor" else {})
    service.step["annotations"] = wanted if place == "service" else {}
    assert service.apply()["traffic"] == "100 % m-predictor-00001 (latest) latest"
    state = service.apply(version="2", percent=0)
    assert state["traffic"] == "0 % m-predictor-00002 (latest) latest, 100 % m-predictor-00001 prev"
    assert service.apply(percent=None)["traffic"] == "100 % m-predictor-00002 (latest) latest"


def test_tag_routing_added_during_a_canary_makes_a_revision_of_the_canary() -> None:
    service = Service()
    service.apply()
    service.apply(version="2", percent=10)
    state = service.apply(annotations={"serving.kserve.io/enable-tag-routing": "true"})
    assert state["traffic"] == "10 % m-predictor-00003 (latest) latest, 90 % m-predictor-00001 prev"
    state = service.apply(annotations={})
    assert state["traffic"] == "10 % m-predictor-00004 (latest), 90 % m-predictor-00001 prev"


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({"minReplicas": 2}, 2),
        ({"timeout": 20}, 2),
        ({"annotations": {"a": "b"}}, 2),
        ({"labels": {"a": "b"}}, 2),
        ({"annotations": {"serving.knative.dev/rollout-duration": "10s"}}, 1),
        ({"annotations": {"autoscaling.knative.dev/min-scale": "3"}}, 1),
        ({}, 1),
    ],
)
def test_what_reaches_the_template_makes_a_revision(changed: Document, count: int) -> None:
    service = Service()
    service.apply()
    service.predictor = changed
    service.apply()
    assert len(service.revisions) == count


def test_content_that_was_there_before_makes_a_revision_all_the_same() -> None:
    service = Service()
    service.apply()
    service.apply(version="2")
    state = service.apply(version="1")
    assert state["traffic"] == "100 % m-predictor-00003 (latest)"
    assert (state["latestRolledoutRevision"], state["previousRolledoutRevision"]) == (
        "m-predictor-00003",
        "m-predictor-00002",
    )


def test_promoted_by_100_nothing_happens_when_the_field_goes() -> None:
    service = Service()
    service.apply()
    service.apply(version="2", percent=10)
    promoted = service.apply(percent=100)
    assert promoted["traffic"] == "100 % m-predictor-00002 (latest)"
    assert service.apply(percent=None) == promoted


def test_a_failed_canary_is_replaced_by_a_good_one() -> None:
    service = Service()
    service.apply()
    failed = service.apply(version="2", server="exits 3", percent=10)
    assert failed["traffic"] == "10 % m-predictor-00001 (latest), 90 % m-predictor-00001 prev"
    assert failed["model"] == "BlockedByFailedLoad, Loaded to FailedToLoad, 0 ready"
    good = service.apply(version="3", server="good")
    assert good["traffic"] == "10 % m-predictor-00003 (latest), 90 % m-predictor-00001 prev"
    assert (good["Ready"], good["failure"]) == ("True", failed["failure"])
    assert service.world.servers["m-predictor-00002"].state == "stopped"


def test_a_canary_that_is_overtaken_while_it_starts_never_gets_traffic() -> None:
    service = Service()
    service.apply()
    service.apply(version="2", percent=10, starting=True)
    service.apply(version="3", starting=True)
    assert service.world.servers["m-predictor-00002"].state == "stopped"
    assert service.apply()["traffic"] == "10 % m-predictor-00003 (latest), 90 % m-predictor-00001 prev"
    assert all("m-predictor-00002" not in {target.revision for target in route} for route in service.world.routes)


def test_a_canary_at_zero_is_promoted_by_the_next_apply_without_the_field() -> None:
    service = Service()
    service.apply()
    service.apply(version="2", percent=0)
    state = service.apply(percent=None)
    assert (state["traffic"], state["latestRolledoutRevision"]) == (
        "100 % m-predictor-00002 (latest)",
        "m-predictor-00002",
    )


def test_a_runtime_that_is_missing_is_waited_for_while_stable_serves() -> None:
    offered = {"supportedModelFormats": [{"name": "fake"}]} | {
        "containers": [{"name": "kserve-container", "command": ["serve"], "args": []}]
    }
    runtime = Runtime("first", offered, {}, "", True)
    service = Service(World(runtimes=(runtime,)))
    model = {"modelFormat": {"name": "fake"}, "storageUri": "s3://b/m"}
    service.predictor = {"model": model | {"runtime": "first"}, "containers": []}
    assert service.apply()["Ready"] == "True"
    service.predictor["model"] = model | {"runtime": "second"}
    state = service.apply(percent=10)
    assert state["traffic"] == "100 % m-predictor-00001 (latest)"
    assert state["model"].startswith("InvalidSpec")
    assert state["failure"] == "RuntimeNotRecognized 0: Waiting for runtime to become available"
    service.world.runtimes = (runtime, replace(runtime, name="second"))
    service.apply()
    assert service.revisions == ["m-predictor-00001"]  # the two runtimes say the same
    service.predictor["model"] |= {"args": ["--other"]}
    assert service.apply()["traffic"] == "10 % m-predictor-00002 (latest), 90 % m-predictor-00001 prev"


def test_with_auto_update_disabled_a_ready_service_stays_as_it_is() -> None:
    service = Service()
    frozen = {"serving.kserve.io/disable-auto-update": "true"}
    ready = service.apply(annotations=frozen)
    assert service.apply(version="2", percent=10) == ready
    assert service.revisions == ["m-predictor-00001"]
    assert service.apply(annotations={})["traffic"].startswith("10 % m-predictor-00002")


@pytest.mark.parametrize(
    ("predictor", "told"),
    [
        ({"timeout": 700}, "expected 0 <= 700 <= 600: spec.template.spec.timeoutSeconds"),
        ({"containerConcurrency": 1001}, "expected 0 <= 1001 <= 1000: spec.template.spec.containerConcurrency"),
        (
            {"annotations": {"serving.knative.dev/progress-deadline": "soon"}},
            "invalid value: soon: spec.template.metadata.annotations.serving.knative.dev/progress-deadline",
        ),
    ],
)
def test_what_knatives_webhook_refuses_is_told_in_its_words(predictor: Document, told: str) -> None:
    service = Service(predictor=predictor)
    state = service.apply()
    assert state["PredictorReady"] == f"False ReconcileFailed: {DENIED}{told}"
    assert "InternalError" in service.world.events
    service.predictor = {}
    assert service.apply()["Ready"] == "True"


def test_a_name_too_long_for_a_knative_service_is_refused() -> None:
    state = Service(name="m" * 54).apply()
    told = f"{DENIED}not a DNS 1035 label: [must be no more than 63 characters]: metadata.name"
    assert state["PredictorReady"] == f"False ReconcileFailed: {told}"


def test_revisions_of_a_long_name_are_shortened_as_knative_does_it() -> None:
    service = Service(name="m" * 50)
    service.apply()
    (name,) = service.revisions
    assert len(name) == 63
    assert name == child_name("m" * 50 + "-predictor", "-00001")
    assert (name[:25], name[-6:]) == ("m" * 25, "-00001")


def test_knatives_own_conditions_are_those_that_were_recorded() -> None:
    service = Service()
    service.apply(starting=True)
    starting = dict(of_revision(service, 0))
    assert starting["Ready"] == starting["ContainerHealthy"] == "Unknown Deploying"
    assert starting["Active"].startswith("Unknown Queued: Requests to the target are being buffered")
    service.apply()
    assert dict(of_revision(service, 0)) == dict.fromkeys(
        ("Active", "ContainerHealthy", "Ready", "ResourcesAvailable"), "True"
    )
    service.apply(version="2", server="exits 3", percent=10)
    service.world.now += 601
    service.world.reconcile(service.document)
    failed = dict(of_revision(service, 1))
    assert failed["Ready"] == failed["ContainerHealthy"] == "False ExitCode3: Container failed with: cannot load\n"
    assert failed["ResourcesAvailable"].startswith("False ProgressDeadlineExceeded: ReplicaSet")
    described = {one["type"]: one for one in revisionstatus.of_service(service.world.known["predictor"])}
    assert described["Ready"]["reason"] == described["ConfigurationsReady"]["reason"] == "RevisionFailed"
    assert described["RoutesReady"] == {"type": "RoutesReady", "status": "True"}


def of_revision(service: Service, number: int) -> Iterator[tuple[str, str]]:
    revision = service.world.known["predictor"].revisions[number]
    for one in revisionstatus.of_revision(revision, runs=True, exit_code=3):
        text = f" {one['reason']}" if "reason" in one else ""
        yield one["type"], one["status"] + text + (f": {one['message']}" if "message" in one else "")


def grown(retention: Retention, count: int = 5) -> Service:
    """A service with `count` versions, an hour between them."""
    service = Service(World(retention=retention))
    for version in range(count):
        service.world.now += HOUR_S
        service.apply(version=str(version))
    return service


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(), [1, 2, 3, 4, 5]),
        (Retention(0, 0, least=0), [5]),
        (Retention(0, 0, least=2), [3, 4, 5]),
        (Retention(None, None, least=0, most=1), [4, 5]),
        (Retention(None, None, least=0, most=None), [1, 2, 3, 4, 5]),
        (Retention(2.5 * HOUR_S, 0, least=0), [3, 4, 5]),
        (Retention(0, 1.5 * HOUR_S, least=0), [3, 4, 5]),
        (Retention(2.5 * HOUR_S, None, least=0), [3, 4, 5]),
    ],
)
def test_idle_revisions_are_collected_as_knative_is_told_to(retention: Retention, left: list[int]) -> None:
    service = grown(retention)
    assert [int(name[-1]) for name in service.revisions] == left


def test_a_revision_marked_to_be_kept_is_never_collected() -> None:
    service = Service(World(retention=Retention(0, 0, least=0)))
    service.apply(annotations={collection.KEEP_ANNOTATION: "true"})
    service.apply(version="2", annotations={})
    service.apply(version="3")
    assert service.revisions == ["m-predictor-00001", "m-predictor-00003"]


def test_rolling_back_to_a_revision_that_was_collected_says_so_and_traffic_stays() -> None:
    service = Service(World(retention=Retention(0, 0, least=0)))
    service.apply()
    service.apply(version="2")
    state = service.apply(percent=0)
    gone = 'False RevisionMissing: Revision "m-predictor-00001" referenced in traffic not found.'
    assert state["PredictorRouteReady"] == state["Ready"] == gone
    # The rollback's first reconcile had led everything to the revision that is rolled back, as `prev`.
    assert state["traffic"] == "0 % m-predictor-00002 (latest), 100 % m-predictor-00002 prev"
    assert service.apply(percent=None)["traffic"] == "100 % m-predictor-00002 (latest)"


def test_collection_takes_a_record_without_idle_revisions_as_it_is() -> None:
    service = Service()
    service.apply()
    known = service.world.known["predictor"]
    assert collect(known, Retention(0, 0, least=0, most=0), 1e9) is known


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (None, Retention()),
        (
            {"retain-since-create-time": "disabled", "max-non-active-revisions": "Disabled"},
            Retention(None, 15 * HOUR_S, 20, None),
        ),
        (
            {
                "retain-since-create-time": "0s",
                "retain-since-last-active-time": "1h30m",
                "min-non-active-revisions": "3",
            },
            Retention(0.0, 1.5 * HOUR_S, 3, 1000),
        ),
        ({"retain-since-create-time": "soon"}, Retention()),
        ({"min-non-active-revisions": "-1"}, Retention()),
        ({"min-non-active-revisions": "5", "max-non-active-revisions": "2"}, Retention()),
    ],
)
def test_the_collectors_settings_are_knatives_config_map(data: Document | None, found: Retention) -> None:
    assert collection.read({"data": data} if data is not None else None) == found
