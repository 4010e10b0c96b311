"""Who is asking: static bearer tokens, as kube-apiserver's --token-auth-file reads them. Whoever has one may do all."""

from __future__ import annotations

import csv
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.kubernetes.status import ApiError, details, forbidden, qualified, unauthorized

# What anyone may ask, as the role system:public-info-viewer allows.
PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")


@dataclass(frozen=True)
class User:
    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()

    def info(self) -> dict[str, Any]:
        """UserInfo of the authentication API."""
        made: dict[str, Any] = {"username": self.name, "groups": [*self.groups, "system:authenticated"]}
        return made | ({"uid": self.uid} if self.uid else {})


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))
ADMIN = ("admin", "admin", ("system:masters",))


def load_tokens(path: Path) -> dict[str, User]:
    """Users by token. A line is `token,user,uid,"group,group"`, or a token alone, which is the administrator's.

    A file that is not there is made, for its owner alone, with a fresh token.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    users = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.reader(file, skipinitialspace=True):
            if line and line[0].strip():
                name, uid, groups = ADMIN if len(line) == 1 else (line[1], "".join(line[2:3]), _groups(line))
                users[line[0].strip()] = User(name, uid, groups)
    if not users:
        raise SandboxError(f"{path} holds no token", "Remove it to have one made.")
    return users


def _groups(line: list[str]) -> tuple[str, ...]:
    return tuple(group.strip() for group in "".join(line[3:4]).split(",") if group.strip())


def authenticate(tokens: dict[str, User], authorization: str) -> User:
    """The user of an Authorization header; anonymous without one. Raises ApiError 401 for an unknown token."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return ANONYMOUS
    for known, user in tokens.items():
        if hmac.compare_digest(known.encode(), token.strip().encode()):
            return user
    raise unauthorized()


def refuse_resource(verb: str, group: str, plural: str, name: str, namespace: str) -> ApiError:
    """403 for what the anonymous user asks of a resource."""
    if (group, plural) == ("", "namespaces") and name:
        namespace = name
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    whole = plural.partition("/")[0]
    named = f'{qualified(group, whole)} "{name}"' if name else qualified(group, whole)
    what = f'cannot {verb} resource "{plural}" in API group "{group}" {where}'
    message = f'{named} is forbidden: User "{ANONYMOUS.name}" {what}'
    return forbidden(message, details(group, whole, name))


def refuse_path(method: str, path: str) -> ApiError:
    """403 for any other path."""
    verb = {"HEAD": "get"}.get(method, method.lower())
    return forbidden(f'forbidden: User "{ANONYMOUS.name}" cannot {verb} path "{path}"', {})
