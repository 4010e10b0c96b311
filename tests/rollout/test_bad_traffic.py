"""Clients that send nonsense through the gateway harm nobody but themselves."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from dataclasses import dataclass

import httpx
import pytest

from kanary.traffic import Traffic
from tests.rollout.rig import BODIES, ROWS, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox

GOOD_RATE = 120.0


@dataclass(frozen=True)
class Bad:
    """A request that no predictor can answer; `model` and `protocol` are parts of its path."""

    body: bytes
    content_type: str = "application/json"
    model: str = ""
    protocol: str = "v1"


BAD = (
    Bad(b""),
    Bad(b"{"),
    Bad(b"[" * 20_000),
    Bad(b"null"),
    Bad(json.dumps({"instances": []}).encode()),
    Bad(json.dumps({"instances": [ROWS[0] | {"length": None}]}).encode()),
    Bad(json.dumps({"instances": [ROWS[0] | {"length": "long"}]}).encode()),
    Bad(b'{"instances": [{"length": NaN, "width": 1, "colour": "red"}]}'),
    Bad(json.dumps({"instances": [{"length": 1.0}]}).encode()),
    Bad(json.dumps({"instances": [[1.0, 2.0], [1.0]]}).encode()),
    Bad(json.dumps({"instances": [ROWS[0], 7]}).encode()),
    Bad(BODIES[0], content_type="text/csv"),
    Bad(BODIES[0], model="another"),
    Bad(b"x" * (11 << 20)),
    Bad(BODIES[0], protocol="v2"),
    Bad(b'{"inputs": [{"name": "length", "datatype": "FP64", "shape": [9], "data": [1]}]}', protocol="v2"),
)


def send_bad(service: Service, traffic: Traffic, stop: threading.Event, statuses: Counter[int]) -> None:
    """Bad requests on a connection that is kept, one for every three good ones, until told to stop."""
    with httpx.Client(timeout=30, trust_env=False) as client:
        for bad in itertools.cycle(BAD):
            while 3 * statuses.total() >= traffic.summary().requests:
                if stop.wait(0.005):
                    return
            url = service.url.replace(f"models/{service.name}", f"models/{bad.model or service.name}")
            if bad.protocol == "v2":
                url = url.replace("/v1/", "/v2/").replace(":predict", "/infer")
            statuses[client.post(url, content=bad.body, headers={"content-type": bad.content_type}).status_code] += 1


def test_a_quarter_of_bad_traffic_fails_no_good_request(service: Service) -> None:
    stop, statuses = threading.Event(), Counter[int]()
    with service.traffic(rate=GOOD_RATE) as traffic:
        sender = threading.Thread(target=send_bad, args=(service, traffic, stop, statuses))
        sender.start()

        def enough() -> bool:
            good = traffic.summary().requests
            return good > 600 and 3 * statuses.total() >= good

        try:
            wait_for(enough, "enough traffic", 120)
            good = traffic.stop()
        finally:
            stop.set()
            sender.join()
    print(f"good {good.requests}, failed {good.failed}; bad {dict(statuses)}")
    assert (good.failed, set(good.by_status)) == (0, {"200"}), good.reasons
    assert all(400 <= status < 500 for status in statuses), statuses
