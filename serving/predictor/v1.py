"""The V1 protocol: `{"instances": [...]}` in, `{"predictions": [...]}` out.

Instances are objects, column to value, or lists in the order of the model's features. A prediction is
`{"label": class, "probabilities": {class: probability}}`, classes as the texts in model.json.
Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.model.preprocess import Encoded
from serving.predictor.contract import Contract
from serving.predictor.refusal import Refused, shown


def decode(document: Any, contract: Contract) -> Encoded:
    """The rows of a request. Raises Refused for anything that the model cannot take."""
    if not isinstance(document, dict):
        raise Refused("malformed", f'the body is {shown(document)}; an object with "instances" is needed')
    instances = document.get("instances")
    if not isinstance(instances, list):
        found = shown(instances) if "instances" in document else "missing"
        raise Refused("malformed", f'"instances" is {found}; a list is needed')
    if not instances:
        raise Refused("shape", '"instances" is empty; at least one row is needed')
    row = next((row for row, instance in enumerate(instances) if type(instance) is not type(instances[0])), 0)
    if row or not isinstance(instances[0], dict | list):
        kind = shown(instances[row])
        raise Refused("shape", f"instances[{row}] is {kind}; all must be objects, or all lists")
    if isinstance(instances[0], dict):
        return contract.quick.objects(instances) or contract.encode(_objects(instances, contract))
    return contract.quick.lists(instances) or contract.encode(_lists(instances, contract))


def encode(labels: Sequence[str], probabilities: Sequence[Sequence[float]], classes: Sequence[str]) -> dict[str, Any]:
    """The response: a label and the probability of every class, for every row."""
    return {
        "predictions": [
            {"label": label, "probabilities": dict(zip(classes, row, strict=True))}
            for label, row in zip(labels, probabilities, strict=True)
        ]
    }


def _objects(instances: list[Mapping[str, Any]], contract: Contract) -> dict[str, list[Any]]:
    expected = set(contract.names)
    for row, instance in enumerate(instances):
        if instance.keys() != expected:
            contract.check_names(instance, f"instances[{row}]")
    columns = {name: [instance[name] for instance in instances] for name in contract.names}
    for feature in contract.features:
        contract.check(feature, columns[feature.name], "instances[", f"].{feature.name}")
    return columns


def _lists(instances: list[list[Any]], contract: Contract) -> dict[str, list[Any]]:
    width = len(contract.names)
    for row, instance in enumerate(instances):
        if len(instance) != width:
            raise Refused("shape", f"instances[{row}] has {len(instance)} values; the model takes {width}")
    columns = {name: list(values) for name, values in zip(contract.names, zip(*instances, strict=True), strict=True)}
    for index, feature in enumerate(contract.features):
        contract.check(feature, columns[feature.name], "instances[", f"][{index}]")
    return columns
