"""The record of one registered model version; needs no MLflow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """One registered model version, pinned: an alias or stage is resolved to it once."""

    name: str
    """Name of the registered model."""
    version: int
    """Number of the version, from 1. A model that is deleted and made again starts at 1 again."""
    model_id: str
    """MLflow's id of the logged model: differs where name and number are equal."""
    pointer: str | None
    """The alias or stage that was resolved, as a URI; None for a version named by number."""

    @property
    def is_logged(self) -> bool:
        """Whether MLflow has given it a model id, which no other model ever has."""
        return self.model_id.startswith("m-")

    @property
    def uri(self) -> str:
        """The URI by name and number, which is recorded."""
        return f"models:/{self.name}/{self.version}"
