"""The service as a `kserve.Model`, so that KServe's server tells of it and KServe's own calls can reach it."""

from __future__ import annotations

from typing import Any

import kserve
from kserve.errors import InvalidInput

from serving.predictor import v2
from serving.predictor.refusal import Refused
from serving.predictor.service import Service


class PredictorModel(kserve.Model):  # type: ignore[misc]  # kserve carries no types
    """Ready from the start: it is made of a service that has predicted already."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.name)
        self.service = service
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs for model metadata."""
        return v2.input_metadata(self.service.predictor.spec)

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs for model metadata."""
        return v2.output_metadata(self.service.predictor.spec)

    def predict(
        self,
        payload: dict[str, Any] | kserve.InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | kserve.InferResponse:
        """The V1 answer to a dict, the V2 answer to an InferRequest. Raises InvalidInput with the reason."""
        try:
            if not isinstance(payload, kserve.InferRequest):
                return self.service.v1(payload)
            document, json_length = payload.to_rest()
            if json_length is None:
                return kserve.InferResponse.from_rest(self.service.v2(document))
            answer = self.service.answer_alone("v2", document, json_length)
            return kserve.InferResponse.from_bytes(answer.content, answer.json_length or len(answer.content))
        except Refused as refused:
            raise InvalidInput(refused.message) from None
