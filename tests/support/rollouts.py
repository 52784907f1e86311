"""Roll-outs without networks: rows are written in place of scoring; real tables and registry."""

from dataclasses import dataclass, field

from mlproject.rollout import ledger, reconciliation
from mlproject.rollout.decision import Policy
from mlproject.rollout.version_scoring import Budget
from mlproject.versions import registry
from tests.support.lakes import add_predictions, pending, scored

POINTER = "models:/photos@champion"

# What may follow a state of one version at one pointer; "" = it had none.
NEXT = {
    "": {"scoring", "serving", "failed"},
    "scoring": {"scoring", "serving", "superseded", "failed"},
    "serving": {"serving", "superseded"},
    "superseded": {"scoring", "serving", "failed"},
    "failed": {"scoring", "serving", "failed"},
}


@dataclass
class Scorer:
    """Predicts a micro-batch at a time by writing rows; `meanwhile` happens after each of them."""

    lake: str
    batch: int = 4
    most: int = 1000
    bad: frozenset[str] = frozenset()
    meanwhile: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    @property
    def budget(self):
        return Budget(images=self.most)

    def score(self, step, stop):
        self.asked.append(step.version.version)
        done = 0
        while not stop():
            todo = pending(self.lake, step.version)[: min(self.batch, self.most)]
            if not todo:
                break
            add_predictions(self.lake, step.version, set(todo) - self.bad)
            add_predictions(self.lake, step.version, self.bad & set(todo), error="undecodable")
            done, self.most = done + len(todo), self.most - len(todo)
            if self.meanwhile:
                self.meanwhile.pop(0)()
        return scored(self.lake, done)


@dataclass
class Scoring:
    """Calls a function in place of scoring."""

    score: object
    budget: Budget = field(default_factory=Budget)


class NoRuns:
    """Records nothing in MLflow."""

    def began(self, version, last):
        return "run"

    def row_written(self, entry):
        pass


def point(client, version):
    registry.move(client, version, alias="champion")


def reconcile(
    client,
    lake,
    scorer=None,
    *,
    stopped=False,
    pointer=POINTER,
    runs=None,
    verify=False,
    **policy,
):
    scorer = scorer or Scorer(lake)
    scorer.client, scorer.lake, scorer.runs = client, lake, runs or NoRuns()
    stop, decided = (lambda: stopped), Policy(**policy)
    return reconciliation.reconcile(pointer, scorer, decided, stop, verify=verify)


def states(lake, pointer=POINTER):
    return [(entry.version.version, entry.state) for entry in ledger.read(lake).rows(pointer)]


def serving(lake):
    now = ledger.read(lake).serving(POINTER)
    return now and now.version.version


def require_sound(lake):
    """The rules of the ledger: legal steps, one `serving` at most, full coverage where it is."""
    ledger_rows = ledger.read(lake)
    for pointer in ledger_rows.known():
        last = {}
        for entry in ledger_rows.rows(pointer):
            key = entry.version
            assert entry.state in NEXT[last.get(key, "")], (last.get(key), entry)
            last[key] = entry.state
            if entry.state == "serving":
                assert entry.covered.images == entry.covered.predicted, entry
        assert sum(state == "serving" for state in last.values()) <= 1
        assert [entry.at for entry in ledger_rows.rows(pointer)] == sorted(
            {entry.at for entry in ledger_rows.rows(pointer)}
        )
