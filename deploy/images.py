"""Builds the container images with docker, podman or buildah, whichever is there: `make images TARGETS="train serve"`.

Standard library only, for any Python from 3.8 on. Prints each image's name and digest, and the KANARY_IMAGE_* lines
that pin compiled pipelines to them. Pushes only with --push.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("pipeline", "train", "serve", "drift")
ENGINES = ("docker", "podman", "buildah")


class Image(NamedTuple):
    """A built image: its target, its name with tag, its digest ("" where the engine knows none before a push)."""

    target: str
    name: str
    digest: str

    @property
    def pinned(self) -> str:
        """The name to compile with."""
        return f"{self.name.rpartition(':')[0]}@{self.digest}" if self.digest else self.name


def main() -> int:
    """Build what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="deploy/images.py", description="Build Kanary's container images.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--push", action="store_true", help="push each, and print the digest that the registry knows")
    parser.add_argument("--options", default="", help="more options for the engine's build, quoted as for a shell")
    given = parser.parse_args()
    targets = given.targets or list(TARGETS)
    if unknown := [target for target in targets if target not in TARGETS]:
        parser.error(f"no target is called {unknown[0]!r}; there are {', '.join(TARGETS)}")
    engine = find_engine()
    if not engine:
        print("images: no docker, podman or buildah that works is here; pipelines run in the sandbox without images.")
        print("  Debian, Ubuntu: apt install podman   Fedora: dnf install podman   docker: start its daemon")
        return 1
    images = []
    for target in targets:
        name = image_name(target)
        print(f"images: {engine} builds {name}", flush=True)
        if build(engine, target, name, shlex.split(given.options)):
            print(f"images: {engine} could not build {target}; its last lines above say why", file=sys.stderr)
            return 1
        if given.push and subprocess.run([engine, "push", name]).returncode:
            print(f"images: {engine} could not push {name}; log in with: {engine} login", file=sys.stderr)
            return 1
        images.append(Image(target, name, digest(engine, name)))
    print("\n".join(report(images, given.push)))
    return 0


def find_engine() -> str:
    """The first engine that works: a docker client without its daemon does not; "" where none does."""
    for engine in ENGINES:
        path = shutil.which(engine)
        if (
            path
            and subprocess.run([path, "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        ):
            return engine
    return ""


def image_name(target: str) -> str:
    """The tag that `components.images` compiles into pipelines, from the same variables."""
    prefix = os.environ.get("KANARY_IMAGE_PREFIX") or "localhost/kanary"
    return f"{prefix.rstrip('/')}/{target}:{os.environ.get('KANARY_IMAGE_TAG') or version()}"


def version() -> str:
    """Kanary's version, read without importing it."""
    text = (ROOT / "kanary" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found
    return found[1]


def build(engine: str, target: str, name: str, options: list[str]) -> int:
    """Run the engine's build; its exit status."""
    command = [engine, "build", "--file", "Containerfile", "--target", target, "--tag", name]
    command += ["--label", f"org.opencontainers.image.version={version()}"]
    if engine == "buildah":
        command += ["--layers"]  # take unchanged steps from the last build, as the others do unasked
    return subprocess.run([*command, *options, "."], cwd=ROOT).returncode


def digest(engine: str, name: str) -> str:
    """The digest of the image: the registry's after a push, else this engine's own; "" where it keeps none."""
    if engine == "buildah":
        command = [engine, "inspect", "--type", "image", "--format", "{{json .FromImageDigest}}", name]
    else:
        command = [engine, "image", "inspect", "--format", "{{json .RepoDigests}}", name]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    found = json.loads(answer.stdout) if answer.returncode == 0 else []
    # The last is the newest: a push that compressed the layers anew adds another.
    digests = [entry.rpartition("@")[2] for entry in ([found] if isinstance(found, str) else found or [])]
    return digests[-1] if digests else ""


def report(images: list[Image], pushed: bool) -> list[str]:
    """What was built, and the lines that pin compiled pipelines to it."""
    width = max(len(image.name) for image in images)
    lines = ["", *(f"  {image.name.ljust(width)}  {image.digest or '(no digest before a push)'}" for image in images)]
    lines += [
        "",
        "Pin compiled pipelines to them:" if pushed else "Compile pipelines with them (--push gives digests):",
    ]
    lines += [
        f"  export KANARY_IMAGE_{image.target.upper()}={image.pinned if pushed else image.name}" for image in images
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
