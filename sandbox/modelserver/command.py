"""What a container's command becomes on this machine: its port, its model folder, the interpreter, or a fork."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import NotFound
from sandbox.gateway.process import ports
from sandbox.modelserver.spec import Spec

MODEL_FOLDER = "/mnt/models"
# The address and port of the sandbox's gateway, for a server that calls another one.
GATEWAY_VARIABLE = "KANARY_GATEWAY"
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_ANYWHERE = re.compile(r"(?<![\d.])0\.0\.0\.0(?![\d.])")
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# Interpreter options that take no value and that a fork of the same interpreter can do without.
_FLAGS = re.compile(r"-[uPIBEsSO]+")


@dataclass(frozen=True)
class Command:
    """A command ready to run. `module` is set where it is `python -m module argv...`; then it can be forked."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    module: str = ""
    module_argv: tuple[str, ...] = ()


def command(spec: Spec, port: int, model: Path | None, metrics_port: int = 0, gateway: str = "") -> Command:
    """`spec`'s command for a server on `port` of 127.0.0.1 whose model lies in the folder `model`.

    The container's port is replaced where it stands alone or after `=` or `:` ("8080", "--http_port=8080",
    "0.0.0.0:8080"), in words and in environment values, and so is the one of its metrics, by `metrics_port`, and
    0.0.0.0 by 127.0.0.1; PORT and HOST are set besides.
    $(NAME) refers to the environment as in a container, $(KANARY_GATEWAY) to `gateway`. `python` is this interpreter.
    """
    own = {"HOST": "127.0.0.1"} | ({GATEWAY_VARIABLE: gateway} if gateway else {})

    def place(text: str) -> str:
        text = _port(text, spec.port, port)
        if spec.metrics_port:
            text = _port(text, spec.metrics_port, metrics_port)
        text = _ANYWHERE.sub("127.0.0.1", text)
        return text.replace(MODEL_FOLDER, str(model)) if model is not None else text

    env = own | {name: _expand(place(value), own) for name, value in spec.env.items()} | {"PORT": str(port)}
    words = [_expand(place(word), env) for word in (*spec.command, *spec.args)]
    if not _PYTHON.fullmatch(Path(words[0]).name):
        return Command(tuple(words), env)
    words[0] = sys.executable
    rest = words[1:]
    while rest and _FLAGS.fullmatch(rest[0]):
        rest = rest[1:]
    if len(rest) >= 2 and rest[0] == "-m":
        return Command(tuple(words), env, rest[1], tuple(rest[2:]))
    return Command(tuple(words), env)


def gateway(home: Path) -> str:
    """Where the gateway of that sandbox listens, as `address:port`; empty where there is none."""
    try:
        return f"127.0.0.1:{ports(home)[0]}"
    except NotFound:
        return ""


def _port(text: str, inside: int, outside: int) -> str:
    if text == str(inside):
        return str(outside)
    for separator in "=:":
        head, found, tail = text.rpartition(separator)
        if found and tail == str(inside):
            return f"{head}{separator}{outside}"
    return text


def _expand(word: str, env: Mapping[str, str]) -> str:
    """$(NAME) by its value; a reference to what is not set stays, as in Kubernetes."""
    return _REFERENCE.sub(lambda match: env.get(match.group(1), match.group(0)), word)
