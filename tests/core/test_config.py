from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kanary.config import POD_TOKEN_VARIABLE, Config, load, nearest_home
from kanary.errors import ConfigError
from kanary.settings import DEFAULT_ENDPOINT, SETTINGS


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty working folder; its own home and configuration folders beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def environment(place: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(place.parent), "XDG_CONFIG_HOME": str(place.parent / "xdg")} | more


def write_file(place: Path, text: str) -> Path:
    path = place.parent / "xdg" / "kanary" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_endpoints(home: Path, pid: object, url: str = "http://127.0.0.1:18888") -> None:
    home.mkdir(exist_ok=True)
    document = {"kfp": {"url": url}, "prometheus": {"url": "http://127.0.0.1:19090"}, "pid": pid}
    (home / "endpoints.json").write_text(json.dumps(document), encoding="utf-8")


def test_defaults_hold_where_nothing_is_said(place: Path) -> None:
    config = load({}, environment(place), place)
    assert config.kfp_endpoint == DEFAULT_ENDPOINT
    assert config.home == place / ".kanary"
    assert (config.timeout, config.readonly, config.token_file, config.namespace) == (10.0, False, None, "")
    assert {str(source) for source in config.sources.values()} == {"default"}


def test_flag_beats_environment_beats_file_beats_default(place: Path) -> None:
    path = write_file(place, 'kfp_endpoint = "http://file:1"\ntimeout = 3\nnamespace = "from-file"\n')
    environ = environment(place, KFP_ENDPOINT="http://environment:2", KFP_NAMESPACE="from-environment")
    config = load({"kfp_endpoint": "http://flag:3"}, environ, place)
    assert (config.kfp_endpoint, config.namespace, config.timeout) == ("http://flag:3", "from-environment", 3.0)
    assert str(config.sources["kfp_endpoint"]) == "flag --endpoint"
    assert str(config.sources["namespace"]) == "environment KFP_NAMESPACE"
    assert str(config.sources["timeout"]) == f"file {path}"
    assert str(config.sources["context"]) == "default"


def test_every_setting_can_come_from_every_place_and_says_so(place: Path) -> None:
    values = {
        "home": "there", "kfp_endpoint": "http://h:1", "namespace": "team-a", "token_file": "token",
        "cookie_file": "cookie", "timeout": "2.5", "readonly": "true", "context": "prod",
        "prometheus_url": "https://p/x", "kubeconfig": "kube", "readonly_contexts": "prod-*",
        "protected_contexts": "prod-*, stage", "prometheus_token_file": "p-token", "prometheus_ca_file": "ca.pem",
        "token_account": "team-a/editor",
        "prometheus_tenant": "team-a", "prometheus_selectors": "cluster=prod, team=a=b",
    }  # fmt: skip
    secrets = {setting.key for setting in SETTINGS if setting.secret}
    known = [setting for setting in SETTINGS if not setting.secret]
    assert {setting.key for setting in SETTINGS} == {f.name for f in dataclasses.fields(Config)} - {"sources"}
    assert set(values) == {setting.key for setting in known}
    path = write_file(place, "".join(f'{key} = "{value}"\n' for key, value in values.items()))
    variables = {setting.environment: values[setting.key] for setting in known}
    by_kind = {
        "flag": load(values, environment(place), place),
        "environment": load({}, environment(place, **variables), place),
        "file": load({}, environment(place), place),
    }
    for kind, config in by_kind.items():
        assert {source.kind for key, source in config.sources.items() if key not in secrets} == {kind}
        base = path.parent if kind == "file" else place
        assert (config.home, config.token_file, config.kubeconfig) == (
            base / "there",
            base / "token",
            str(base / "kube"),
        )
        assert (config.timeout, config.readonly, config.context) == (2.5, True, "prod")
        assert config.prometheus_selectors == {"cluster": "prod", "team": "a=b"}


def test_a_secret_comes_from_the_environment_alone_and_is_never_told(place: Path) -> None:
    config = load({}, environment(place, KANARY_COOKIE="session=hush"), place)
    assert config.cookie == "session=hush"
    assert "hush" not in repr(config)
    with pytest.raises(ConfigError, match=r"cookie .*environment KANARY_COOKIE") as caught:
        load({}, environment(place, KANARY_COOKIE="hush\nX-Evil: 1"), place)
    assert "hush" not in str(caught.value)
    write_file(place, 'cookie = "hush"\n')
    with pytest.raises(ConfigError, match="cookie_file"):
        load({}, environment(place), place)


def test_the_token_that_kubeflow_puts_into_a_pod_is_used_where_nothing_else_is_said(place: Path) -> None:
    projected = place / "projected"
    environ = environment(place, **{POD_TOKEN_VARIABLE: str(projected)})
    assert load({}, environ, place).token_file is None
    projected.write_text("t", encoding="utf-8")
    config = load({}, environ, place)
    assert (config.token_file, str(config.sources["token_file"])) == (projected, f"pod {projected}")
    assert load({"token_file": "own"}, environ, place).token_file == place / "own"
    assert load({"token_account": "editor"}, environ, place).token_file is None


def test_selectors_are_a_table_in_the_file(place: Path) -> None:
    write_file(place, 'prometheus_selectors = { cluster = "prod" }\n')
    assert load({}, environment(place), place).prometheus_selectors == {"cluster": "prod"}


def test_an_empty_variable_is_none(place: Path) -> None:
    write_file(place, 'kfp_endpoint = "http://file:1"\n')
    config = load({}, environment(place, KFP_ENDPOINT=""), place)
    assert config.kfp_endpoint == "http://file:1"


def test_home_is_the_nearest_one_above(place: Path) -> None:
    (place / ".kanary").mkdir()
    deep = place / "a" / "b"
    deep.mkdir(parents=True)
    assert nearest_home(deep) == place / ".kanary"
    (place / "a" / ".kanary").mkdir()
    assert load({}, environment(place), deep).home == place / "a" / ".kanary"


def test_the_running_sandbox_gives_its_addresses(place: Path) -> None:
    home = place / ".kanary"
    write_endpoints(home, os.getpid())
    config = load({}, environment(place), place)
    assert (config.kfp_endpoint, config.prometheus_url) == ("http://127.0.0.1:18888", "http://127.0.0.1:19090")
    assert str(config.sources["kfp_endpoint"]) == f"sandbox {home / 'endpoints.json'}"


def test_what_a_person_wrote_beats_the_sandbox(place: Path) -> None:
    write_endpoints(place / ".kanary", os.getpid())
    write_file(place, 'kfp_endpoint = "https://cluster/pipeline/"\n')
    assert load({}, environment(place), place).kfp_endpoint == "https://cluster/pipeline"


@pytest.mark.parametrize("pid", [None, "7", 0, -1])
def test_endpoints_without_a_process_are_stale(place: Path, pid: object) -> None:
    write_endpoints(place / ".kanary", pid)
    assert load({}, environment(place), place).sources["kfp_endpoint"].kind == "default"


def test_endpoints_of_an_ended_process_are_stale(place: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    write_endpoints(place / ".kanary", child.pid)
    assert load({}, environment(place), place).sources["kfp_endpoint"].kind == "default"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"kfp": 3}', "\x00"])
def test_a_damaged_endpoints_file_stops_nobody(place: Path, text: str) -> None:
    (place / ".kanary").mkdir()
    (place / ".kanary" / "endpoints.json").write_text(text, encoding="utf-8")
    assert load({}, environment(place), place).kfp_endpoint == DEFAULT_ENDPOINT


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("localhost:8888", "http://localhost:8888"),
        ("https://host/pipeline//", "https://host/pipeline"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_endpoints_as_the_stock_cli_takes_them(place: Path, given: str, wanted: str) -> None:
    assert load({"kfp_endpoint": given}, environment(place), place).kfp_endpoint == wanted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kfp_endpoint", "ftp://host"),
        ("kfp_endpoint", "http://"),
        ("kfp_endpoint", "http://host:99999"),
        ("kfp_endpoint", "http://user:secret@host"),
        ("kfp_endpoint", "http://host/?a=1"),
        ("kfp_endpoint", "http://ho st"),
        ("timeout", "0"),
        ("timeout", "-1"),
        ("timeout", "nan"),
        ("timeout", "soon"),
        ("timeout", "1e9"),
        ("readonly", "perhaps"),
        ("namespace", "No_Name"),
        ("context", "a\x1b[31m"),
        ("token_file", "a\x00b"),
        ("token_account", "a/b/c"),
        ("token_account", "No"),
        ("prometheus_tenant", "team-ä"),
        ("prometheus_selectors", "cluster"),
        ("prometheus_selectors", "1a=b"),
        ("prometheus_selectors", "a=\x1b[31m"),
    ],
)
def test_a_bad_value_is_refused_with_key_source_and_what_is_allowed(place: Path, key: str, value: str) -> None:
    variable = next(setting.environment for setting in SETTINGS if setting.key == key)
    with pytest.raises(ConfigError) as caught:
        load({}, environment(place, **{variable: value}), place)
    assert key in caught.value.message
    assert f"environment {variable}" in caught.value.message
    assert caught.value.hint.startswith("Allowed: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", ["3", "true", "[]", "2026-11-21"])
def test_a_value_of_another_type_in_the_file_is_refused(place: Path, value: str) -> None:
    path = write_file(place, f"kfp_endpoint = {value}\n")
    with pytest.raises(ConfigError, match="kfp_endpoint") as caught:
        load({}, environment(place), place)
    assert str(path) in caught.value.message


def test_true_is_no_number_of_seconds(place: Path) -> None:
    write_file(place, "timeout = true\n")
    with pytest.raises(ConfigError, match="timeout"):
        load({}, environment(place), place)


def test_an_unknown_key_in_the_file_is_named_with_the_likely_one(place: Path) -> None:
    path = write_file(place, 'kfp_endpont = "http://x"\n')
    with pytest.raises(ConfigError) as caught:
        load({}, environment(place), place)
    assert str(path) in caught.value.message
    assert "kfp_endpoint" in caught.value.hint


def test_a_broken_file_is_named(place: Path) -> None:
    path = write_file(place, "kfp_endpoint = \n")
    with pytest.raises(ConfigError, match="line 1") as caught:
        load({}, environment(place), place)
    assert str(path) in caught.value.message


def test_paths_take_the_home_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load({"token_file": "~/token", "kubeconfig": f"~/a{os.pathsep}/b"}, environment(place), place)
    assert config.token_file == Path("/home/somebody/token")
    assert config.kubeconfig == f"/home/somebody/a{os.pathsep}/b"


def test_a_config_cannot_be_changed(place: Path) -> None:
    config = load({}, environment(place), place)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.sources["timeout"] = config.sources["home"]  # type: ignore[index]
