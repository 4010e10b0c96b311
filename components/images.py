"""Which container image a component runs in, decided when it is compiled. Never pulls or builds one."""

from __future__ import annotations

import os
import re

from kanary import __version__
from kanary.errors import ConfigError

TARGETS = ("pipeline", "train", "serve", "drift")

# The grammar of github.com/distribution/reference: registry/path:tag@sha256:digest, all but the path optional.
_HOST = r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]+)?/)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(rf"{_HOST}{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII)


def image(target: str) -> str:
    """The image reference of a target of the Containerfile: `pipeline`, `train`, `serve` or `drift`.

    KANARY_IMAGE_<TARGET> gives it whole, and may pin it by `@sha256:`; else it is
    KANARY_IMAGE_PREFIX (localhost/kanary) / target : KANARY_IMAGE_TAG (this version).
    Raises ConfigError for another target or for what is no image reference.
    """
    if target not in TARGETS:
        raise ConfigError(f"no image target is called {target!r}", "the targets are " + ", ".join(TARGETS))
    variable = f"KANARY_IMAGE_{target.upper()}"
    reference = os.environ.get(variable, "")
    if not reference:
        prefix = os.environ.get("KANARY_IMAGE_PREFIX", "") or "localhost/kanary"
        tag = os.environ.get("KANARY_IMAGE_TAG", "") or __version__
        variable = "KANARY_IMAGE_PREFIX and KANARY_IMAGE_TAG"
        reference = f"{prefix.rstrip('/')}/{target}:{tag}"
    if not _REFERENCE.fullmatch(reference):
        raise ConfigError(
            f"{reference!r}, from {variable}, is not an image reference",
            "expected registry/path:tag or registry/path@sha256:<64 hexadecimal digits>",
        )
    return reference
