"""What a report shows. A `Version` has no pointer here, so that two can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlproject.rollout import ledger
from mlproject.versions.registry import Version


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Counts of the table of images."""

    rows: int
    """Rows: one for each path and content."""
    distinct: int
    """Different contents."""
    errors: int
    """Those that cannot be read."""
    labelled: int
    """Those whose files have one label: their folder's name, or one that was given later."""
    in_folders: Mapping[str, int]
    """Label that a version knows -> those with it."""


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """Counts of the predictions of one version."""

    version: Version
    """The version."""
    images: int
    """Images with a prediction or an error."""
    known: int
    """Images among them that are in the snapshot of the table of images."""
    errors: int
    """Images among them with an error."""
    mean_score: float | None
    """Mean score, 0..1; None = no prediction has a score."""
    labelled: int
    """Images without an error whose folder has the name of a label of the version."""
    correct: int
    """Labelled images among them whose predicted label is the name of their folder."""
    first_at: int
    """When the first prediction was made, microseconds since 1970."""
    last_at: int
    """When the last prediction was made, microseconds since 1970."""
    labels: Mapping[str | None, int]
    """Predicted label -> images; None = predictions without a label."""
    vocabulary: frozenset[str]
    """Labels that the version predicted for any image, top labels included: the labels that it
    knows, as far as the table shows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image and its predictions by one version or two."""

    image_id: str
    """Sha256 of the content."""
    predictions: tuple[tuple[str | None, float], ...]
    """Label and score (0..1), one pair for each version."""
    path: str | None = None
    """The first of the files with that content; None = the table lacks the image."""
    folder: str | None = None
    """The label of that file."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The images for which two versions predict different labels."""

    version: Version
    """The serving version, the one that was scored last, or a quantized one."""
    other: Version
    """The version that it was quantized from, or that of the same model that was scored last beside
    it."""
    both: int
    """Images with predictions of both without an error."""
    different: int
    """Images among them with different labels."""
    correct: int
    """Different ones for which `version` predicts the folder's label."""
    other_correct: int
    """Different ones for which `other` predicts the folder's label."""
    transitions: tuple[tuple[str | None, str | None, int], ...]
    """The most frequent (label of `other`, label of `version`, images) among the different ones."""
    pictures: tuple[Picture, ...]
    """Different ones with the predictions of `version` and `other`, highest scores first."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often one error code occurs."""

    code: str
    """The code, as in the column `error`."""
    unreadable: int
    """Different images that have it in the table of images."""
    versions: Mapping[Version, int]
    """Version -> predictions with this code."""
    examples: tuple[str, ...]
    """One path or two."""


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """The serving version of one alias or stage."""

    pointer: str
    """The alias or stage as a URI."""
    serving: ledger.Entry | None
    """Its last `serving` row in `rollouts`, whose version is without the pointer here; None = no
    version has served yet."""
    predictions: int
    """Images of the table of images for which the serving version has a prediction."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The most frequent predicted labels of the versions side by side."""

    shown: tuple[str | None, ...]
    """Most frequent first; None = predictions without a label."""
    others: int
    """How many more labels were predicted."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """The data of a report."""

    lake: str
    """The folder or URI of the tables."""
    made_at: int
    """When the tables were read, microseconds since 1970."""
    table_versions: Mapping[str, int | None]
    """Table -> the Delta version that was read; None = there is no such table yet."""
    images: ImageCounts
    """Counts of the table of images."""
    serving: tuple[ServingVersion, ...]
    """One for each alias or stage, by name."""
    versions: tuple[VersionCounts, ...]
    """Every version that has predictions, by name, number and time."""
    columns: tuple[Version, ...]
    """The versions side by side: the serving versions, and those scored last."""
    labels: Labels
    """The labels in the rows of these columns."""
    certainties: tuple[tuple[Version, tuple[Picture, ...], tuple[Picture, ...]], ...]
    """Versions with the images of their highest and of their lowest scores, these first."""
    differences: tuple[Difference, ...]
    """Quantized versions and their sources, and two versions of each shown model."""
    errors: tuple[ErrorCount, ...]
    """One for each error code that occurs."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for the shown images that can be decoded."""

    def counts(self, version: Version) -> VersionCounts | None:
        """The counts of a version; None = it has no predictions."""
        return next((found for found in self.versions if found.version == version), None)

    def pointers(self, version: Version) -> list[str]:
        """The aliases and stages whose serving version this is."""
        return [
            found.pointer
            for found in self.serving
            if found.serving and found.serving.version == version
        ]

    def name(self, version: Version) -> str:
        """Model name and number; with the model id where several versions share them."""
        known = {found.version for found in self.versions}
        known |= {found.serving.version for found in self.serving if found.serving}
        same = [found for found in known if found.uri == version.uri]
        name = f"{version.name} {version.version}"
        return f"{name} ({version.model_id})" if len(same) > 1 else name
