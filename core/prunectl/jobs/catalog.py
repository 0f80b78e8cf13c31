"""The models that can be named without a path: what lies in the zoo roots."""

from __future__ import annotations

from prunectl.errors import NotFound, nearest
from prunectl.jobs.lookup import roots_of
from prunectl.schemas import Environment, ModelView
from prunectl.settings import Settings
from prunectl.zoo.fetch import list_models


class Catalog:
    """Lists the zoo: the service's own, or the submitter's where the stack is embedded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def models(self, environment: Environment | None = None) -> list[ModelView]:
        return list_models(roots_of(environment if self._settings.embedded else None, self._settings.zoo_roots))

    def model(self, name: str, environment: Environment | None = None) -> ModelView:
        """Raises NotFound with the nearest name as hint."""
        models = {view.name: view for view in self.models(environment)}
        if name not in models:
            near = nearest(name, models)
            raise NotFound(
                f"no model {name!r} under a zoo root",
                hint=f"did you mean {near}?" if near else "PRUNECTL_MODEL_PATH names the zoo roots",
            )
        return models[name]
