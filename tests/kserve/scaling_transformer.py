"""A transformer as KServe's users write it: multiplies instances on the way in, adds its name on the way out."""

from __future__ import annotations

import argparse
from typing import Any

import kserve
from kserve import model_server


class Scaling(kserve.Model):  # type: ignore[misc]
    """`predict` is kserve's own: it asks the predictor named by --predictor_host."""

    def __init__(self, name: str, config: kserve.PredictorConfig) -> None:
        super().__init__(name, config)
        self.ready = True

    def preprocess(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Twice as much of everything."""
        return {"instances": payload["instances"] * 2}

    def postprocess(
        self,
        result: dict[str, Any],
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Whoever reads it knows that it came this way."""
        return result | {"transformed": True}


if __name__ == "__main__":
    options, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
    found = kserve.PredictorConfig(options.predictor_host, options.predictor_protocol, options.predictor_use_ssl)
    kserve.ModelServer(enable_grpc=False, workers=1).start([Scaling(options.model_name, found)])
