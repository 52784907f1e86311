"""The record of one registered model version; needs no MLflow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """One registered model version: what a pointer stood for when it was read."""

    name: str
    """Name of the registered model."""
    version: int
    """Number of the version, from 1. A model made again after deletion begins at 1 anew."""
    model_id: str
    """MLflow's id of the logged model: told apart where name and number are not."""
    pointer: str | None
    """The alias or stage that was resolved, as a URI; None for a version named by number."""

    @property
    def loaded_from(self) -> str:
        """What is loaded: by id where MLflow gives one, which no other model ever has."""
        return f"models:/{self.model_id}" if self.model_id.startswith("m-") else self.uri

    @property
    def uri(self) -> str:
        """The version itself, by number: what is recorded."""
        return f"models:/{self.name}/{self.version}"
