"""Any earlier release: naming it, going back to it, what is known of it, and whether there is a way back at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kanary import manifests, release
from kanary.errors import InputError, KanaryError
from kanary.kserve import deploy, history, models, readiness, rollback, steer, store
from kanary.kserve.models import Found
from kanary.kserve.readiness import Readiness
from kanary.modelspec import ModelSpec
from kanary.release import Release
from tests.core import cluster as knative
from tests.core import standard_cluster as standard
from tests.core.cluster import NAMESPACE, Cluster, digest
from tests.core.standard_cluster import StandardCluster
from tests.rollout.rig import make_release

MODES = [Cluster, StandardCluster]
THERE = Found(True, False, "it is there")


def deployed(cluster: Cluster, number: int, percent: int = 0) -> None:
    made = standard.manifest if isinstance(cluster, StandardCluster) else knative.manifest
    started = cluster.run(deploy.start_canary(made(number), run_id=f"run{number}", clock=cluster.clock))
    cluster.run(deploy.wait_ready(started, clock=cluster.clock))
    if percent:
        cluster.run(steer.set_traffic("m", NAMESPACE, percent, token=started.token, clock=cluster.clock))
    cluster.run(deploy.finish(started))


def promoted(cluster: Cluster, number: int) -> None:
    deployed(cluster, number)
    cluster.run(steer.promote("m", NAMESPACE, clock=cluster.clock))


def three(kind: type[Cluster]) -> Cluster:
    """v1, v2 and v3, each promoted."""
    cluster = kind()
    deployed(cluster, 1)
    promoted(cluster, 2)
    promoted(cluster, 3)
    return cluster


def back(cluster: Cluster, to: str, **more: Any) -> rollback.Rollback:
    return cluster.run(rollback.rollback("m", NAMESPACE, "bad", to=to, clock=cluster.clock, **more))


def ready(cluster: Cluster, look: Any = lambda release: THERE) -> Readiness:
    return cluster.run(readiness.readiness("m", NAMESPACE, look=look))


def serving(cluster: Cluster) -> tuple[str, dict[str, int]]:
    found = cluster.run(steer.status("m", NAMESPACE))
    assert found.stable == found.created
    assert not cluster.service["spec"].get("canary")
    return manifests.model_version(manifests.content(cluster.service)), found.split


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("to", ["v1", digest(1), "run1"])
def test_two_releases_back_is_one_rollback(kind: type[Cluster], to: str) -> None:
    cluster = three(kind)
    before = cluster.run(steer.status("m", NAMESPACE)).stable
    cluster.splits.clear()
    done = back(cluster, to)
    assert (done.outcome, done.bad_version, done.target_version) == ("done", "v3", "v1")
    version, split = serving(cluster)
    assert (version, list(split.values())) == ("v1", [100])
    assert before not in split
    assert all(sum(split.values()) == 100 for split in cluster.splits), "traffic stayed until it was up"
    assert release.denial(cluster.state, digest(3)) is not None
    assert release.denial(cluster.state, digest(2)) is None


@pytest.mark.parametrize("kind", MODES)
def test_during_a_canary_the_traffic_goes_to_stable_first(kind: type[Cluster]) -> None:
    cluster = kind()
    deployed(cluster, 1)
    promoted(cluster, 2)
    deployed(cluster, 3, 50)
    canary = cluster.run(steer.status("m", NAMESPACE)).canary
    said: list[str] = []
    done = back(cluster, "v1", on_progress=lambda step: said.append(step.kind))
    assert (done.outcome, done.target_version) == ("done", "v1")
    assert said.index("stop") < said.index("effective") < said.index("restore") < said.index("complete")
    version, split = serving(cluster)
    assert version == "v1"
    assert canary not in split


@pytest.mark.parametrize("kind", MODES)
def test_to_the_release_that_is_stable_is_a_plain_rollback(kind: type[Cluster]) -> None:
    cluster = kind()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)
    assert back(cluster, "v1").outcome == "done"
    assert serving(cluster)[0] == "v1"
    assert back(cluster, "v1").outcome == "already"


@pytest.mark.parametrize("kind", MODES)
def test_killed_anywhere_and_run_again_it_goes_on(kind: type[Cluster]) -> None:
    for kill_after in range(20):
        cluster = three(kind)
        act = rollback.rollback("m", NAMESPACE, "bad", to="v1", clock=cluster.clock)
        try:
            cluster.run(act, kill_after)
        except knative.Killed:
            # Without naming it again: what was begun is what goes on.
            assert back(cluster, "v1" if kill_after == 0 else "").target_version == "v1"
            assert serving(cluster)[0] == "v1"
        else:
            assert kill_after > 2
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("kind", MODES)
def test_what_is_gone_is_said_before_anything_is_touched(kind: type[Cluster]) -> None:
    cluster = three(kind)
    before, state = cluster.service, cluster.state
    with pytest.raises(KanaryError, match="cannot be rolled back to v1: it was deleted") as told:
        back(cluster, "v1", look=lambda release: Found(False, True, "it was deleted"))
    assert "Nothing was changed" in told.value.hint
    assert (cluster.service, cluster.state) == (before, state)


def test_the_brake_does_not_wait_for_a_look_at_the_model() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)

    def never(release: Release) -> Found:
        raise AssertionError("the traffic goes first")

    assert cluster.run(rollback.rollback("m", NAMESPACE, look=never, clock=cluster.clock)).outcome == "done"


def test_a_release_that_is_not_there_ambiguous_or_denied_is_refused() -> None:
    cluster = three(Cluster)
    with pytest.raises(InputError, match="no release 'v9' in its history; there are: v1, v2, v3"):
        back(cluster, "v9")
    back(cluster, "v2")
    with pytest.raises(InputError, match="v3 of ns/m is denied: operator rolled it back"):
        back(cluster, "v3")
    twin = release.Release("v1", "", "sha256:twin", {})
    cluster_state = release.record(cluster.state, twin)
    cluster.send(store.write(cluster_state, "m", NAMESPACE))
    with pytest.raises(InputError, match="'v1' is more than one release of ns/m: sha256:twin, sha256:1"):
        back(cluster, "v1")


@pytest.mark.parametrize("kind", MODES)
def test_a_dry_run_tells_the_patch_and_changes_nothing(kind: type[Cluster]) -> None:
    cluster = three(kind)
    cluster.sent.clear()
    found = cluster.run(rollback.preview("m", NAMESPACE, to="v1", look=lambda release: THERE))
    assert found.cold
    assert found.patch is not None
    assert "stays until v1 has come up anew" in found.text
    changing = [request for request in cluster.sent if request.changes]
    assert [dict(request.params) for request in changing] == [{"dryRun": "All"}]


@pytest.mark.parametrize("kind", MODES)
def test_the_history_tells_who_when_why_and_how_it_ended(kind: type[Cluster]) -> None:
    cluster = three(kind)
    back(cluster, "v2")
    found = cluster.run(history.history("m", NAMESPACE))
    assert [(entry.version, entry.verdict) for entry in found.releases] == [
        ("v3", release.ROLLED_BACK),
        ("v2", release.PROMOTED),
        ("v1", release.PROMOTED),
    ]
    assert {(entry.who, entry.run_id[:3], bool(entry.when)) for entry in found.releases} == {("operator", "run", True)}
    assert all(entry.seconds is not None and entry.storage_uri and entry.revision for entry in found.releases)
    assert [entry.digest for entry in found.denied] == [digest(3)]


def test_an_end_is_noted_with_its_evidence_and_an_operators_stays() -> None:
    cluster = three(Cluster)
    sha = "a" * 64
    cluster.run(history.conclude("m", NAMESPACE, digest(3), release.PROMOTED, "s3://e/3", sha, clock=cluster.clock))
    entry = release.newest(cluster.state, digest(3))
    assert entry is not None
    assert (entry.verdict, entry.evidence, entry.evidence_sha256) == (release.PROMOTED, "s3://e/3", sha)
    back(cluster, "v2")
    cluster.run(history.conclude("m", NAMESPACE, digest(3), release.PROMOTED, "s3://e/4", f"sha256:{sha}"))
    entry = release.newest(cluster.state, digest(3))
    assert entry is not None
    assert (entry.verdict, entry.evidence) == (release.ROLLED_BACK, "s3://e/4")
    with pytest.raises(InputError, match="'fine' is no verdict"):
        cluster.run(history.conclude("m", NAMESPACE, digest(3), "fine", "", ""))
    with pytest.raises(InputError, match="no sha256"):
        cluster.run(history.conclude("m", NAMESPACE, digest(3), release.PROMOTED, "s3://e", "abc"))
    with pytest.raises(InputError, match="no release sha256:none"):
        cluster.run(history.conclude("m", NAMESPACE, "sha256:none", release.PROMOTED, "", ""))


@pytest.mark.parametrize("kind", MODES)
def test_before_a_promotion_the_way_back_is_a_cold_start_of_known_length(kind: type[Cluster]) -> None:
    cluster = kind()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)
    cluster.send(store.write(release.amend(cluster.state, digest(1), seconds=42.0), "m", NAMESPACE))
    found = ready(cluster)
    assert (found.ok, found.target, found.cold, found.seconds) == (True, "v1", True, 42.0)
    assert "some 42 s" in "; ".join(finding.said for finding in found.findings)


def test_replicas_of_the_target_are_told_beside_those_that_carry_the_load() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)
    said = {finding.what: finding.said for finding in ready(cluster).findings}
    assert said["replicas"] == "1 of m-predictor ready; 2 carry the traffic now"


@pytest.mark.parametrize("kind", MODES)
def test_without_the_targets_model_there_is_no_way_back(kind: type[Cluster]) -> None:
    cluster = kind()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)
    gone = Found(False, True, "it was deleted")
    judged = ready(cluster, lambda release: gone if release.version == "v1" else THERE)
    assert not judged.ok
    assert [one.what for one in judged.findings if one.blocks] == ["model"]


def test_a_content_that_nobody_recorded_is_no_way_back() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)
    state = cluster.state
    cluster.send(store.write(replace(state, history=state.history[1:]), "m", NAMESPACE))
    judged = ready(cluster)
    assert (judged.ok, judged.target) == (False, "")
    assert "nobody recorded the content" in judged.findings[0].said


def test_a_first_release_has_no_way_back() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    judged = ready(cluster)
    assert not judged.ok
    assert "the only good release" in judged.findings[0].said


def test_a_model_is_looked_for_where_its_uri_says(tmp_path: Path) -> None:
    def found(uri: str) -> Found:
        return models.look(Release("v1", uri, "sha256:1", {}))

    gone = found((tmp_path / "gone").as_uri())
    assert (gone.there, gone.gone) == (False, True)
    for uri in ("s3://b/m", "gs://b/m", "pvc://claim/m", "", "http://127.0.0.1:9/m", "file:///no/such/mount/m"):
        unknown = found(uri)
        assert (unknown.there, unknown.gone) == (False, False), uri
        assert "cannot be checked" in unknown.why
    (tmp_path / "other").mkdir()
    assert found((tmp_path / "other").as_uri()).there
    (tmp_path / "other" / "model.json").write_text("{}")
    assert found((tmp_path / "other").as_uri()).gone


def test_a_model_that_was_altered_or_replaced_is_seen(tmp_path: Path) -> None:
    made = make_release(tmp_path, "v1", 1)
    kept = Release("v1", made.uri, made.digest, {})
    for looked in (models.look(kept), models.glance(kept)):
        assert (looked.there, looked.gone) == (True, False)
        assert looked.spec is not None
    other = replace(kept, digest="sha256:other")
    assert models.look(other).gone
    assert models.glance(other).gone
    (file,) = made.path.glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    assert models.look(kept).gone
    assert models.glance(kept).there, "it reads the description only"
    file.unlink()
    assert models.glance(kept).gone


def test_a_schema_that_todays_requests_do_not_fit_is_no_way_back(tmp_path: Path) -> None:
    made = make_release(tmp_path, "v1", 1)
    spec = models.look(Release("v1", made.uri, made.digest, {})).spec
    assert spec is not None
    assert spec.features[0].required
    narrower = replace(spec, features=spec.features[1:])
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 50)

    def specs(target: ModelSpec, serving: ModelSpec) -> Readiness:
        by_version = {"v1": target, "v2": serving}
        return ready(cluster, lambda release: replace(THERE, spec=by_version[release.version]))

    assert specs(spec, spec).ok
    assert specs(narrower, spec).ok, "a request may carry more than it needs"
    lacking = specs(spec, narrower)
    assert not lacking.ok
    assert f"it needs {spec.features[0].name}" in "; ".join(one.said for one in lacking.findings if one.blocks)


def test_a_share_that_was_in_flight_is_not_believed_at_once() -> None:
    """The status still agrees with what another operator has just overruled: only a later event, or quiet, tells."""
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 20)
    cluster.touch(**{manifests.PERCENT: 30})
    begun, moves = cluster.now, cluster._move
    cluster._move = lambda: False  # type: ignore[method-assign]  # the controller has not seen it yet
    moved = cluster.run(steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock))
    assert moved.in_force
    assert cluster.now - begun >= 3.0, "it waited for an event that could have said otherwise"
    cluster._move = moves  # type: ignore[method-assign]
    cluster.settle()
    assert knative.shares(cluster.service) == {"01": 80, "02": 20}
