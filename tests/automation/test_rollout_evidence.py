from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser

import pytest

from components.rollout.report import report_page
from kanary.rollout import acts, bundle
from kanary.rollout import record as records
from kanary.rollout.brief import report, summary
from tests.automation.world import QUICK, Model, World, serving
from tests.core.cluster import NAMESPACE


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def ended() -> World:
    world = serving()

    def approve() -> None:
        if world.record.waits != "approval of the promotion":
            world.at_look = approve
        else:
            world.user = "<script>alert('cleo')</script>"
            world.run(acts.approve("m", NAMESPACE, "looks <b>well</b>", world.now))
            world.user = "operator"

    world.at_look = approve
    world.roll_out(QUICK | {"approve": ["promotion"]})
    return world


def test_the_bundle_tells_all_that_the_rollout_rested_on(ended: World) -> None:
    record = ended.record
    document = json.loads(bundle.written(bundle.bundle(record, "m", NAMESPACE)))
    assert document["outcome"] == "promoted"
    assert document["policy"]["steps"] == [50, 100]
    assert [step["percent"] for step in document["steps"]] == [50, 100]
    assert document["steps"][0]["canary"]["requests"] > 100
    assert document["canary"] == {"revision": record.canary, "version": "v2", "digest": "sha256:2"}
    assert [(act["what"], act["why"]) for act in document["acts"]] == [("approve", "looks <b>well</b>")]
    assert document["verdict"]["findings"]["reasons"][0]["name"] == "errors"
    assert document["who"] == "operator"
    assert document["started"] < document["ended"]


def test_the_same_record_gives_the_same_bytes_and_another_another_hash(ended: World) -> None:
    once, again = (bundle.written(bundle.bundle(ended.record, "m", NAMESPACE)) for _ in range(2))
    assert once == again
    assert bundle.sha256(once) == hashlib.sha256(once).hexdigest()
    assert bundle.sha256(once) != bundle.sha256(bundle.written(bundle.bundle(ended.record, "n", NAMESPACE)))


def test_the_hash_is_kept_beside_the_rollout_it_is_about(ended: World) -> None:
    record = ended.record
    ended.run(acts.keep_evidence("m", NAMESPACE, record, "s3://b/evidence", "ab" * 32))
    assert summary(ended.record)["evidence"] == {"uri": "s3://b/evidence", "sha256": "ab" * 32}
    assert ended.state.history[-1].evidence_sha256 == "ab" * 32


def test_the_page_stands_alone_and_escapes_what_people_say(ended: World) -> None:
    page = Tags(report_page(bundle.bundle(ended.record, "m", NAMESPACE), "ab12"))
    assert {"svg", "table", "polyline"} <= page.tags
    assert not {"script", "link", "iframe", "b", "img"} & page.tags
    assert not {"src", "href", "onload"} & page.attributes
    for told in ("Promoted:", "<script>alert('cleo')</script>", "looks <b>well</b>", "sha256 ab12", "50 %", "v2"):
        assert told in page.text


@pytest.mark.parametrize("rate", [0.0, 50.0])
def test_a_page_is_made_of_every_outcome(rate: float) -> None:
    world = serving()
    world.rate, world.models["02"] = rate, Model(fails=0.5)
    record = world.roll_out(QUICK | {"deadline": 60})
    assert record.outcome == (records.ROLLED_BACK if rate else records.HELD)
    assert record.why in Tags(report_page(bundle.bundle(record, "m", NAMESPACE), "")).text


def test_a_rollout_is_told_in_brief(ended: World) -> None:
    told = report(ended.record)
    assert "v2: promoted, 50 -> [100] %" in told
    assert "said      approve" in told


def test_while_it_bakes_it_is_told_until_when_and_what_it_waits_for() -> None:
    world, told = serving(), []

    def look() -> None:
        if world.record.phase != records.BAKING or not world.record.waits:
            world.at_look = look
        else:
            told.append((report(world.record), summary(world.record)))

    world.at_look = look
    world.roll_out()
    text, brief = told[0]
    assert "baking, [50] -> 100 %" in text
    assert "waits     50 % bakes (until " in text
    assert brief["until"] == pytest.approx(world.record.steps[0].since + 20)
