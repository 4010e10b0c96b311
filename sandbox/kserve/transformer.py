"""spec.transformer: the pods of its own that KServe makes of it, and how it finds its predictor.

Source: components/transformer.go and transformer_custom.go in KServe 0.20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sandbox.kserve.config import Config
from sandbox.kserve.decide import Asked
from sandbox.kserve.knative import Document, Template
from sandbox.kserve.status import TRANSFORMER
from sandbox.kserve.template import NOT_EMULATED, Refused, problem_of, storage_uri, template

_HTTP_PORT = "8080"
# One for all names: a pattern for each is compiled at every start, and kept by `re` long after the service is gone.
_IN_CLUSTER = re.compile(r"(?<![\w.-])([a-z0-9-]+\.[a-z0-9-]+)(\.svc(\.cluster\.local)?)?(:80)?(?![\w.-])")


def asked(isvc: Document, config: Config, predictor: str) -> Asked:
    """What is asked for the transformer; `predictor` is the name of the predictor's Knative Service."""
    service, percent = service_name(isvc), isvc["spec"][TRANSFORMER].get("canaryTrafficPercent")
    try:
        return Asked(service, pod_template(isvc, config, predictor), percent=percent)
    except Refused as refused:
        return Asked(service, None, problem_of(refused), percent)


def service_name(isvc: Document) -> str:
    """The name of the transformer's Knative Service, or Deployment and Service."""
    return f"{isvc['metadata']['name']}-{TRANSFORMER}"


def pod_template(isvc: Document, config: Config, predictor: str) -> Template:
    """The transformer's pod template; `predictor` is the name of the predictor's Service. Raises Refused."""
    component = isvc["spec"][TRANSFORMER]
    for field in ("workerSpec", "storageUris", "storageContainerName"):
        if component.get(field):
            raise Refused(f"spec.{TRANSFORMER}.{field}: the sandbox does not emulate it", NOT_EMULATED)
    main, *others = component.get("containers") or [{}]
    main = main | {"args": _arguments(component, main, isvc["metadata"], predictor)}
    return template(isvc, component, TRANSFORMER, [main, *others], storage_uri(main), config)


def reachable(text: str, hosts: Mapping[str, str]) -> str:
    """`text` (an argument or an environment value) with a component's name in the cluster replaced by its address here.

    `hosts` has, by `<service>.<namespace>`, the host and path that lead there without a cluster's DNS.
    """
    return _IN_CLUSTER.sub(lambda found: hosts.get(found[1], found[0]), text)


def _arguments(component: Document, main: Document, metadata: Document, predictor: str) -> list[str]:
    """The container's arguments with those that KServe appends where they are missing."""
    args = list(main.get("args") or [])
    wanted = {
        "--model_name": metadata["name"],
        "--predictor_host": f"{predictor}.{metadata['namespace']}",
        "--http_port": _HTTP_PORT,
    }
    if component.get("containerConcurrency") is not None:
        wanted["--workers"] = str(component["containerConcurrency"])
    for name, value in wanted.items():
        if not any(word == name or word.startswith(f"{name}=") for word in args):
            args += [name, value]
    return args
