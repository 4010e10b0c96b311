"""`kanary history`: what was released to a service, by whom, why, and how it ended."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from kanary import kubernetes
from kanary.commands.rollout import add_harmless_dry_run, namespace_of
from kanary.config import Config
from kanary.kserve import history as releases
from kanary.kserve.history import History
from kanary.text import one_line, table

if TYPE_CHECKING:
    from kanary.cli import Action

_DIGEST = len("sha256:") + 12


def history(parser: argparse.ArgumentParser) -> Action:
    """Show a service's releases, the newest first: each can be named to `kanary rollback --to`.

    Some twenty are kept, and always the two newest good ones. Exit code 0; 2 where there is no such service.
    """
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the stored predictors included")
    add_harmless_dry_run(parser)
    return _history


def _history(given: argparse.Namespace, config: Config) -> int:
    with kubernetes.connect(config) as api:
        found = api.call(releases.history(given.service, namespace_of(api, config)))
    print(json.dumps(asdict(found), indent=2) if given.json else report(found))
    return 0


def report(found: History) -> str:
    """The history for a person."""
    denied = {entry.digest for entry in found.denied}
    rows = [
        (
            entry.version or "?",
            entry.verdict + (", denied" if entry.digest in denied else ""),
            entry.when,
            entry.who,
            entry.run_id,
            entry.revision,
            entry.digest[:_DIGEST],
            "" if entry.seconds is None else f"{entry.seconds:g} s",
            one_line(entry.why),
            entry.evidence,
        )
        for entry in found.releases
    ]
    headers = ("VERSION", "VERDICT", "WHEN", "WHO", "RUN", "REVISION", "DIGEST", "READY IN", "WHY", "EVIDENCE")
    return table(headers, rows)
