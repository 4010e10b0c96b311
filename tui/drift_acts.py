"""Where one can go from a model that drifts: to another span of its past, to the retraining that it caused."""

from __future__ import annotations

from textual.widget import Widget

from kanary.errors import KanaryError
from kanary.snapshot_drift import SPANS, Model, retraining_name, retrainings
from kanary.snapshot_hub import Hub
from tui.drift_look import span_words
from tui.view import OpenRun


class DriftActs(Widget):
    """For a widget or a screen that knows `the_model()`."""

    hub: Hub

    def the_model(self) -> Model | None:
        """The model that is looked at."""
        raise NotImplementedError

    def act_span(self) -> None:
        """The next longer span of the past; after the longest the shortest."""
        past = self.hub.drift.value.past if self.hub.drift.value else None
        longer = [span for span in SPANS if past and span > past.span]
        self.hub.look_at_drift(longer[0] if longer else SPANS[0])
        self.app.notify(f"The last {span_words(longer[0] if longer else SPANS[0])} are being read.", timeout=2)

    def act_retraining(self) -> None:
        model = self.the_model()
        if model is not None:
            self.run_worker(self._open_retraining(model), group="retraining", exclusive=True)

    async def _open_retraining(self, model: Model) -> None:
        runs = self.hub.runs.value
        found = retrainings(model, runs.by_id.values() if runs else ())
        name = retraining_name(model)
        if not found:
            from kanary import kfp

            same, where = kfp.Predicate("name", "EQUALS", name), self.hub.connections.config.namespace
            try:
                page = await self.hub.connections.call(kfp.list_runs(predicates=(same,), namespace=where))
            except KanaryError as error:
                self.app.notify(f"{error.message} {error.hint}", severity="warning", markup=False)
                return
            found = retrainings(model, page.runs)
        if found:
            self.post_message(OpenRun(found[0]))
            return
        self.app.notify(
            f"No run is called “{name}”: the monitoring pipeline has not retrained this model. It decides so when it "
            "runs (see its artifact `record`); `kfp recurring-run create` lets it run again and again.",
            title="No retraining",
            markup=False,
            timeout=8,
        )
