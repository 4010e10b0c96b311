from __future__ import annotations

from typing import Any

import pytest

from kanary import errors, manifests, release
from kanary.errors import ApiError, InputError, KanaryError
from kanary.kserve import deploy, rollback, steer, store
from kanary.kserve.deploy import Ready, Started
from kanary.operations import Request
from tests.core.cluster import NAMESPACE, Cluster, Killed, digest, manifest, path, shares


def start(cluster: Cluster, number: int, kill_after: int | None = None, **more: Any) -> Started:
    act = deploy.start_canary(manifest(number), run_id=f"run{number}", clock=cluster.clock, **more)
    return cluster.run(act, kill_after)


def ready(cluster: Cluster, started: Started, **more: Any) -> Ready:
    return cluster.run(deploy.wait_ready(started, clock=cluster.clock, **more))


def deployed(cluster: Cluster, number: int) -> Ready:
    started = start(cluster, number)
    found = ready(cluster, started)
    cluster.run(deploy.finish(started))
    return found


def set_traffic(cluster: Cluster, percent: int, **more: Any) -> steer.Moved:
    return cluster.run(steer.set_traffic("m", NAMESPACE, percent, clock=cluster.clock, **more))


def test_the_first_release_takes_all_traffic_without_a_percentage() -> None:
    cluster = Cluster()
    found = deployed(cluster, 1)
    assert shares(cluster.service) == {"01": 100}
    assert manifests.percent(cluster.service) is None
    assert found.url == "http://latest-m-predictor"
    (entry,) = cluster.state.history
    assert (entry.version, entry.digest, entry.run_id, entry.who) == ("v1", digest(1), "run1", "operator")
    assert (entry.revision, entry.verdict) == ("m-predictor-00001", release.PROMOTED)


def test_a_canary_gets_no_traffic_until_it_is_given_some() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    cluster.splits.clear()
    found = deployed(cluster, 2)
    assert found.revision == "m-predictor-00002"
    assert found.url == "http://latest-m-predictor", "its tag, for a smoke test"
    assert cluster.splits
    assert all(split == {"01": 100} for split in cluster.splits)
    moved = set_traffic(cluster, 10)
    assert (moved.in_force, moved.after.split) == (True, {"m-predictor-00001": 90, "m-predictor-00002": 10})


def test_a_first_release_that_fails_gives_way_to_one_that_works() -> None:
    cluster = Cluster(bad={"s3://models/1"})
    started = start(cluster, 1)
    with pytest.raises(KanaryError, match=r"v1 of ns/m is not ready \(m-predictor-00001\): .*cannot load"):
        ready(cluster, started)
    cluster.run(deploy.finish(started))
    assert start(cluster, 2).first
    cluster.settle()
    assert shares(cluster.service) == {"02": 100}


def test_waiting_is_for_that_revision_and_not_for_the_old_ones_ready() -> None:
    cluster = Cluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    started = start(cluster, 2)
    assert any(c["type"] == "Ready" and c["status"] == "True" for c in cluster.service["status"]["conditions"])
    said: list[str] = []
    with pytest.raises(KanaryError, match="not ready after 30 s"):
        ready(cluster, started, deadline=30.0, on_progress=said.append)
    assert said == ["waiting for KServe to make the revision", "m-predictor-00002 is starting"]
    assert shares(cluster.service) == {"01": 100}


def test_a_model_server_may_come_up_at_its_second_start() -> None:
    cluster = Cluster(bad={"s3://models/2"})
    deployed(cluster, 1)
    started = start(cluster, 2)

    def mend(text: str) -> None:
        if "cannot load" in text:
            cluster.bad.clear()
            cluster.world.answer(cluster.service, "m-predictor-00002")

    assert ready(cluster, started, on_progress=mend).revision == "m-predictor-00002"


def test_a_failure_of_an_earlier_canary_is_not_this_ones() -> None:
    cluster = Cluster(bad={"s3://models/2"})
    deployed(cluster, 1)
    started = start(cluster, 2)
    with pytest.raises(KanaryError):
        ready(cluster, started)
    cluster.run(deploy.finish(started))
    assert deployed(cluster, 3).revision == "m-predictor-00003"


def test_killed_anywhere_and_run_again_a_deployment_goes_on() -> None:
    for kill_after in range(20):
        for settles in (False, True):
            cluster = Cluster()
            deployed(cluster, 1)
            try:
                start(cluster, 2, kill_after)
            except Killed:
                if settles:
                    cluster.settle()
                found = deployed(cluster, 2)
                assert found.revision == "m-predictor-00002"
                assert shares(cluster.service) == {"01": 100}
                assert manifests.percent(cluster.service) == 0
                assert [entry.version for entry in cluster.state.history] == ["v1", "v2"]
            else:
                assert kill_after > 2
                return
    raise AssertionError("it never ends")


def test_a_repeated_deployment_keeps_the_share_that_its_canary_has() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    set_traffic(cluster, 10)
    assert deployed(cluster, 2).revision == "m-predictor-00002"
    assert shares(cluster.service) == {"01": 90, "02": 10}


def test_a_denied_digest_is_refused_with_who_when_and_why() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    cluster.run(rollback.rollback("m", NAMESPACE, "too slow", clock=cluster.clock))
    before = cluster.version
    with pytest.raises(InputError, match=r"v2 \(sha256:2\) is denied for ns/m: operator rolled it back at .*too slow"):
        start(cluster, 2)
    assert cluster.version == before


def test_a_deployment_after_a_rollback_does_not_resurrect_the_bad_version() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    set_traffic(cluster, 50)
    cluster.run(rollback.rollback("m", NAMESPACE, clock=cluster.clock))
    cluster.splits.clear()
    deployed(cluster, 3)
    set_traffic(cluster, 10)
    assert all(set(split) <= {"03", "04"} for split in cluster.splits)
    again = cluster.run(rollback.rollback("m", NAMESPACE, clock=cluster.clock))
    assert again.target_version == "v1"


def test_an_unfinished_rollback_is_finished_first() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    with pytest.raises(Killed):
        cluster.run(rollback.rollback("m", NAMESPACE, clock=cluster.clock), kill_after=3)
    cluster.now += store.LEASE_SECONDS + 1
    with pytest.raises(KanaryError, match=r"rollback of m that operator began at .* is unfinished"):
        start(cluster, 3)


def test_two_deployments_at_once_the_second_is_told_of_the_first() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    start(cluster, 2)
    with pytest.raises(KanaryError, match="being worked on by deploy run2"):
        start(cluster, 3)
    cluster.now += store.LEASE_SECONDS + 1
    assert start(cluster, 3).version == "v3"


def test_waiting_keeps_the_lease() -> None:
    cluster = Cluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    started = start(cluster, 2)
    with pytest.raises(KanaryError, match="not ready after"):
        ready(cluster, started, deadline=store.LEASE_SECONDS * 3)
    with pytest.raises(KanaryError, match="being worked on by deploy run2"):
        start(cluster, 3)


def test_two_writers_of_the_state_lose_nothing() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    others = iter(range(7, 10))

    def interfere(request: Request) -> None:
        if request.method == "PUT" and request.path.endswith("/kanary-m") and "configmaps" in request.path:
            number = next(others, None)
            if number is not None:
                cluster.before_request = None
                entry = release.Release(f"v{number}", "", digest(number), {}, f"run{number}")
                cluster.run(store.change("m", NAMESPACE, lambda state: release.record(state, entry)))
                cluster.before_request = interfere

    cluster.before_request = interfere
    deployed(cluster, 2)
    assert sorted(entry.version for entry in cluster.state.history) == ["v1", "v2", "v7", "v8", "v9"]


def test_what_an_operator_set_beside_the_model_stays() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    cluster.touch(timeout=17)
    cluster.settle()
    deployed(cluster, 2)
    assert cluster.service["spec"]["predictor"]["timeout"] == 17


def test_a_deployment_stops_where_an_operator_acts_between_its_requests() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    acted = False

    def act(request: Request) -> None:
        nonlocal acted
        if request.method == "PATCH" and request.path == path("m") and not acted:
            acted = True
            cluster.before_request = None
            cluster.run(rollback.rollback("m", NAMESPACE, clock=cluster.clock))

    cluster.before_request = act
    with pytest.raises(errors.Held, match="operator started rollback"):
        start(cluster, 3)
    assert manifests.model_digest(manifests.content(cluster.service)) == digest(1)


@pytest.mark.parametrize("percent", [-5, 100, 400])
def test_a_share_that_no_canary_can_have_is_refused(percent: int) -> None:
    with pytest.raises(InputError, match=f"{percent} is no share"):
        set_traffic(Cluster(), percent)


def test_a_canary_that_is_not_ready_gets_no_traffic() -> None:
    cluster = Cluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    start(cluster, 2)
    cluster.settle()
    with pytest.raises(KanaryError, match="m-predictor-00002 of ns/m is not ready"):
        set_traffic(cluster, 10)
    with pytest.raises(KanaryError, match="is not ready"):
        cluster.run(steer.promote("m", NAMESPACE, clock=cluster.clock))


def test_without_a_canary_there_is_nothing_to_give_traffic_to() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    with pytest.raises(KanaryError, match="has no canary"):
        set_traffic(cluster, 10)


def test_a_promotion_takes_the_percentage_out_and_is_remembered() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    moved = cluster.run(steer.promote("m", NAMESPACE, "it is good", clock=cluster.clock))
    assert moved.in_force
    assert manifests.percent(cluster.service) is None
    assert shares(cluster.service) == {"02": 100}
    assert [entry.verdict for entry in cluster.state.history] == [release.PROMOTED, release.PROMOTED]


def test_a_share_that_does_not_come_into_force_is_told() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    cluster._move = lambda: False  # type: ignore[method-assign]
    moved = set_traffic(cluster, 10, deadline=20.0)
    assert not moved.in_force
    assert moved.why == "10 % requested, 0 % effective: not in force yet"


def test_an_operators_act_bumps_the_epoch_and_an_automations_does_not() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    started = start(cluster, 2)
    ready(cluster, started)
    set_traffic(cluster, 5, token=started.token)
    assert cluster.state.epoch == started.token.epoch
    set_traffic(cluster, 20)
    assert cluster.state.epoch == started.token.epoch + 1
    with pytest.raises(errors.Held, match="operator started set-traffic"):
        set_traffic(cluster, 50, token=started.token)
    assert shares(cluster.service) == {"01": 80, "02": 20}


def test_what_the_api_refuses_is_told_and_frees_nothing_else() -> None:
    cluster = Cluster()

    def refuse(request: Request) -> None:
        if request.method == "POST" and "inferenceservices" in request.path:
            raise ApiError("admission webhook denied the request", status=400)

    cluster.before_request = refuse
    with pytest.raises(ApiError, match="denied the request"):
        start(cluster, 1)


def test_all_services_are_listed_with_what_is_remembered() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    (found,) = cluster.run(steer.statuses(NAMESPACE))
    assert (found.name, found.revisions[0].version) == ("m", "v1")
