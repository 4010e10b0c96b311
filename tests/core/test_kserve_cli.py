"""The rollout verbs against the sandbox's Kubernetes API, in a process of its own, over TLS."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kanary.cli import main
from kanary.errors import ApiError, KanaryError, Unreachable
from kanary.kserve import deploy, rollback, steer
from kanary.kubeconfig import Access, from_files
from kanary.kubernetes import Act, Change, Document, Kubernetes, inference_services, read, replace
from kanary.operations import Request
from tests.core.cluster import ModelWorld, manifest
from tests.kubernetes.server import start, stop

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("cluster")
    server = start(home)
    yield home / "kubeconfig"
    stop(server.process)


@pytest.fixture
def namespace(kubeconfig: Path, request: pytest.FixtureRequest) -> str:
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    with Kubernetes(from_files([kubeconfig])) as api:
        api.call(one(Request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})))
    return name


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[Kubernetes]:
    with Kubernetes(from_files([kubeconfig])) as made:
        yield made


@pytest.fixture
def controller(kubeconfig: Path, namespace: str) -> Iterator[None]:
    """Plays KServe's controller: a status event after the other, as the sandbox decides them."""
    stopped = threading.Event()
    thread = threading.Thread(target=play, args=(from_files([kubeconfig]), namespace, stopped))
    thread.start()
    yield
    stopped.set()
    thread.join()


def play(entered: Access, namespace: str, stopped: threading.Event) -> None:
    world, published = ModelWorld(), 0
    path = inference_services(namespace, "m")
    with Kubernetes(entered) as api:
        while not stopped.wait(0.003):
            try:
                service = api.call(one(read(path)))
                spec = {key: value for key, value in service.items() if key != "status"}
                world.reconcile(spec)
                for name in list(world.starting())[:1]:
                    world.answer(spec, name)
                for status in world.statuses[published:]:
                    current = api.call(one(read(path)))
                    api.call(one(replace(f"{path}/status", copy.deepcopy(current) | {"status": status})))
                    published += 1
            except ApiError as error:
                if error.status not in (404, 409):
                    raise


def one(request: Request) -> Act[Document]:
    answer: Document = yield request
    return answer


@pytest.fixture
def kanary(
    kubeconfig: Path,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--kubeconfig", str(kubeconfig), "--namespace", namespace])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def deployed(api: Kubernetes, namespace: str, number: int, percent: int = 0) -> None:
    document = manifest(number)
    document["metadata"]["namespace"] = namespace
    started = api.call(deploy.start_canary(document, run_id=f"run{number}"))
    api.call(deploy.wait_ready(started, deadline=120.0))
    if percent:
        api.call(steer.set_traffic("m", namespace, percent, token=started.token))
    api.call(deploy.finish(started))


@pytest.mark.usefixtures("controller")
def test_a_canary_is_steered_and_rolled_back(api: Kubernetes, namespace: str, kanary: Run) -> None:
    deployed(api, namespace, 1)
    deployed(api, namespace, 2, 10)
    code, out, _ = kanary("status", "m")
    assert code == 0
    assert "canary  m-predictor-00002  10 %     yes    v2       latest" in out
    code, out, _ = kanary("set-traffic", "m", "50", "--json")
    assert (code, json.loads(out)["after"]["split"]) == (0, {"m-predictor-00001": 50, "m-predictor-00002": 50})
    code, out, _ = kanary("rollback", "m", "--reason", "it is wrong")
    assert code == 0
    assert "traffic m-predictor-00001 50 %, m-predictor-00002 50 % -> m-predictor-00001 100 % (v1)" in out
    assert "m-predictor-00002 gets no traffic" in out
    assert "the stable content serves all traffic" in out
    code, out, _ = kanary("rollback", "m", "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "already")
    code, out, _ = kanary("status", "--json")
    (status,) = json.loads(out)
    assert (status["requested"], status["split"]) == (None, {"m-predictor-00003": 100})
    with pytest.raises(KanaryError, match=r"v2 .* is denied for .* admin rolled it back .*it is wrong"):
        deployed(api, namespace, 2)


@pytest.mark.usefixtures("controller")
def test_a_canary_is_promoted_and_taken_back_after_all(api: Kubernetes, namespace: str, kanary: Run) -> None:
    deployed(api, namespace, 1)
    deployed(api, namespace, 2, 10)
    code, out, _ = kanary("promote", "m", "--dry-run")
    assert code == 0
    assert "way back  to v1 by a cold start" in out
    assert '"canaryTrafficPercent": null' in out
    assert json.loads(kanary("status", "m", "--json")[1])["requested"] == 10, "nothing was changed"
    code, out, _ = kanary("promote", "m")
    assert code == 0
    moved = "traffic   m-predictor-00001 (v1) 90 %, m-predictor-00002 (v2) 10 %  ->  m-predictor-00002 (v2) 100 %"
    assert out.splitlines()[-1] == moved
    code, out, _ = kanary("rollback", "m", "--dry-run")
    assert code == 0
    assert "m-predictor-00002 100 % -> m-predictor-00001 100 % (v1)" in out
    code, out, _ = kanary("rollback", "m", "--json")
    told = json.loads(out)
    assert (code, told["outcome"], told["from"]["version"], told["to"]) == (0, "done", "v2", "v1")
    assert told["seconds"]["patched"] <= told["seconds"]["effective"] <= told["seconds"]["restored"]


@pytest.mark.usefixtures("controller")
def test_two_rollbacks_at_once_are_one(api: Kubernetes, namespace: str, kubeconfig: Path) -> None:
    deployed(api, namespace, 1)
    deployed(api, namespace, 2, 10)
    outcomes: list[str] = []

    def act() -> None:
        with Kubernetes(from_files([kubeconfig])) as own:
            outcomes.append(own.call(rollback.rollback("m", namespace, deadline=120.0)).outcome)

    threads = [threading.Thread(target=act) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 3
    assert set(outcomes) <= {"done", "already"}
    found = api.call(steer.status("m", namespace))
    assert (found.requested, found.canary, list(found.split.values())) == (None, "", [100])


@pytest.mark.usefixtures("controller")
def test_readonly_sends_no_change(api: Kubernetes, namespace: str, kanary: Run) -> None:
    deployed(api, namespace, 1)
    deployed(api, namespace, 2, 10)
    before = api.call(steer.status("m", namespace))
    code, _, err = kanary("rollback", "m", "--readonly")
    assert code == 1
    assert "Read-only: PUT" in err
    # What the API server only tries out is no change.
    for act in (("rollback", "m"), ("set-traffic", "m", "20")):
        code, out, err = kanary(*act, "--readonly", "--dry-run")
        assert (code, err) == (0, ""), out
    assert api.call(steer.status("m", namespace)).resource_version == before.resource_version


def test_a_service_that_is_not_there(kanary: Run) -> None:
    code, _, err = kanary("status", "nope")
    assert code == 2
    assert "There is no InferenceService 'nope'" in err


def test_a_change_that_does_not_come_is_none(api: Kubernetes, namespace: str) -> None:
    def wait() -> Act[Document | None]:
        listed = yield read(inference_services(namespace))
        version = listed["metadata"]["resourceVersion"]
        changed: Document | None = yield Change(inference_services(namespace), "m", version, 0.1)
        return changed

    assert api.call(wait()) is None


def test_an_api_that_is_not_there_is_named(kubeconfig: Path) -> None:
    entered = from_files([kubeconfig])
    gone = Access("https://127.0.0.1:9", "default", "", str(kubeconfig), entered.tls, credentials=entered.credentials)
    with Kubernetes(gone) as api, pytest.raises(Unreachable, match=r"https://127\.0\.0\.1:9 cannot be reached"):
        api.call(steer.status("m", "default"))


def test_a_wrong_token_is_told(kubeconfig: Path) -> None:
    entered = from_files([kubeconfig])
    wrong = Access(entered.url, "default", "", str(kubeconfig), entered.tls)
    with Kubernetes(wrong) as api, pytest.raises(ApiError, match="403") as error:
        api.call(steer.status("m", "default"))
    assert "rights" in error.value.hint
