from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kanary import config
from kanary import recording_secrets as secrets
from kanary.errors import KanaryError
from kanary.kfp_types import Values
from kanary.recorder import Recorder
from kanary.recording import Writer
from kanary.snapshot import Snapshot, failed, succeeded
from kanary.snapshot_connections import Connections
from kanary.snapshot_hub import EVENTS, METRICS, RUNS, SERVICES, Hub, Scope
from kanary.snapshot_runs import Runs
from tests.core.test_recording import BEGAN, RUN, TASK

REF = {"secretKeyRef": {"name": "s", "key": "k"}}


def test_no_secret_gets_in() -> None:
    secret = "hunter2-5f3a"
    held = {
        "metadata": {
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": f'{{"token": "{secret}"}}'},
            "managedFields": [secret],
        },
        "spec": {
            "containers": [
                {
                    "env": [{"name": "PLAIN", "value": secret}, {"name": "FROM", "valueFrom": REF}],
                    "args": ["--api-token", secret, f"--password={secret}", "--epochs", "3", "-v"],
                    "command": ["sh", "-c", f"run --secret {secret} && echo ok"],
                }
            ],
            "storage": {"s3_secret_key": secret, "keyId": "AKIAABCDEFGHIJKLMNOP", "parameters": {"password": secret}},
            "uri": f"https://user:{secret}@host/x?X-Amz-Signature={secret}&part=1",
        },
        "parameters": [{"name": "DB_PASSWORD", "value": secret}, {"name": "epochs", "value": "3"}],
        "log": f"Authorization: Bearer {secret}\ntoken={secret}\npassword: '{secret}'\nAPI_KEY = {secret}",
        "key": f"-----BEGIN RSA PRIVATE KEY-----\n{secret}\n-----END RSA PRIVATE KEY-----",
        "jwt": f"x eyJhbGciOiJIUzI1NiJ9.{secret}abcd.sig y",
    }  # fmt: skip
    found = json.dumps(secrets.clean(held))
    assert secret not in found
    assert "AKIA" not in found
    for kept in ("secretKeyRef", "--epochs", "part=1", "&& echo ok", '"value": "3"', "host/x", '"name": "PLAIN"'):
        assert kept in found
    assert secret not in secrets.clean_json(json.dumps(held))
    assert secrets.clean_json(f"token {secret}") == secrets.LEFT_OUT


@pytest.mark.parametrize(
    "harmless",
    [
        {"tokenizer": "bert", "max_tokens_seconds": "3", "secretName": "s3", "keyboard": "qwerty"},
        "step 'validate': DataError: the data break their schema, see http://host:8080/a@b",
        "a bearer of news", "s3://bucket/key/model.safetensors", ["--monkey", "5"], 17, None,
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_as_it_is(harmless: Any) -> None:
    assert secrets.clean(harmless) == harmless


def test_secrets_of_every_source_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x"
    hub = Hub(Connections(config.load({}, {"HOME": str(tmp_path)}, tmp_path)), Scope("ns"))
    writer = Writer(path, BEGAN, limit=10**6)
    Recorder(hub, writer)
    secret = {"env": [{"name": "A", "value": "hunter2"}]}
    hub.documents = succeeded({"ns/a": {"metadata": {"name": "a", "namespace": "ns"}, "spec": secret}}, 1.0)
    state = {
        "metadata": {"name": "kanary-a"},
        "data": {"history": json.dumps([{"predictor": secret}]), "note": "hunter2"},
    }
    hub.config_maps = succeeded({"ns/kanary-a": state}, 1.0)
    event = {
        "metadata": {"annotations": {"x": "hunter2"}},
        "reason": "R",
        "message": "password=hunter2",
        "involvedObject": {"name": "a"},
    }
    hub._tell(SERVICES, succeeded({}, 1.0))
    hub._tell(EVENTS, succeeded({"ns/e": event}, 1.0))
    task = replace(TASK, error="token: hunter2", inputs=Values({"password": "hunter2"}))
    hub._tell(RUNS, succeeded(Runs({"r": replace(RUN, parameters={"db_password": "hunter2"}, tasks=(task,))}), 1.0))
    hub._tell(METRICS, failed(Snapshot(), KanaryError("no answer of http://me:hunter2@host", "h"), 1.0, 2.0))
    writer.close()
    text = gzip.decompress(path.read_bytes()).decode()
    assert text.count("\n") == 5
    assert "hunter2" not in text
    assert text.count(secrets.LEFT_OUT) >= 7
