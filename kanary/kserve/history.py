"""What was released to a service, by whom, why, and how it ended: reading it, and noting an end with its evidence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kanary import kubernetes as k8s
from kanary import release
from kanary.errors import InputError
from kanary.kserve import store
from kanary.kubernetes import Act
from kanary.release import Denial, Release, State

VERDICTS = (release.CANARY, release.PROMOTED, release.ROLLED_BACK, release.FAILED, release.REPLACED, release.HELD)


@dataclass(frozen=True)
class History:
    """A service's releases, the newest first, and the digests that may not be deployed again."""

    releases: tuple[Release, ...]
    denied: tuple[Denial, ...]


def history(name: str, namespace: str) -> Act[History]:
    """What is remembered of a service, whether it still exists or not.

    Raises InputError where there is neither the service nor any memory of it.
    """
    service, config_map = yield k8s.Together(store.reads(name, namespace))
    kept = store.unpack(config_map)
    if kept is None:
        store.existing(service, name, namespace)
    state = release.parse(kept)
    return History(tuple(reversed(state.history)), tuple(reversed(state.denied)))


def conclude(
    name: str,
    namespace: str,
    digest: str,
    verdict: str,
    evidence_uri: str,
    evidence_sha256: str,
    *,
    clock: Callable[[], float] = time.time,
) -> Act[None]:
    """Notes how the newest release of a model ended (one of VERDICTS), and where the evidence for it lies.

    An operator may have ended it otherwise meanwhile: `rolled back` is not overwritten, the evidence is noted all the
    same. Raises InputError for another verdict or hash, or for a model that was never released.
    """
    if verdict not in VERDICTS:
        raise InputError(f"{verdict!r} is no verdict on a release.", f"Give one of: {', '.join(VERDICTS)}.")
    bare = evidence_sha256.removeprefix("sha256:")
    if evidence_uri and (len(bare) != 64 or not set(bare) <= set("0123456789abcdef")):
        raise InputError(f"{evidence_sha256!r} is no sha256 of the evidence.", "Give 64 hexadecimal digits.")

    def noted(state: State) -> State:
        known = release.newest(state, digest)
        if known is None:
            raise InputError(
                f"{namespace}/{name} has no release {digest} in its history.", "`kanary history` lists them."
            )
        ended = known.verdict if known.verdict == release.ROLLED_BACK else verdict
        facts = {"evidence": evidence_uri, "evidence_sha256": bare} if evidence_uri else {}
        return release.amend(state, digest, verdict=ended, concluded=release.timestamp(clock()), **facts)

    yield from store.change(name, namespace, noted)
