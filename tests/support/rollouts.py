"""Roll-outs without networks: rows in place of answers, real tables and a real registry."""

from dataclasses import dataclass, field

from mlproject.rollout import ledger, reconciliation
from mlproject.rollout.reconciliation import Rules, Work
from mlproject.versions import registry
from tests.support.lakes import pending, say, scored

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
    """Answers a wave of images at a time by writing rows; `meanwhile` happens after each wave."""

    lake: str
    wave: int = 4
    most: int = 1000
    bad: frozenset[str] = frozenset()
    meanwhile: list = field(default_factory=list)
    asked: list = field(default_factory=list)

    def score(self, version, stop):
        self.asked.append(version.version)
        done = 0
        while not stop():
            todo = pending(self.lake, version)[: min(self.wave, self.most)]
            if not todo:
                break
            say(self.lake, version, set(todo) - self.bad)
            say(self.lake, version, self.bad & set(todo), error="undecodable")
            done, self.most = done + len(todo), self.most - len(todo)
            if self.meanwhile:
                self.meanwhile.pop(0)()
        return scored(self.lake, done)


def work(score, *, stopped=False):
    """What a verb does for a look, with this in place of scoring."""
    return Work(score, lambda version, last: "run", lambda entry: None, lambda: stopped)


def point(client, version):
    registry.move(client, version, alias="champion")


def follow(client, lake, scorer=None, **rules):
    scorer = scorer or Scorer(lake)
    return reconciliation.follow(client, lake, POINTER, work(scorer.score), rules=Rules(**rules))


def states(lake, pointer=POINTER):
    return [(entry.version.version, entry.state) for entry in ledger.read(lake).of(pointer)]


def serving(lake):
    now = ledger.read(lake).serving(POINTER)
    return now and now.version.version


def require_sound(lake):
    """The rules of the ledger: legal steps, one `serving` at most, full coverage where it is."""
    page = ledger.read(lake)
    for pointer in page.pointers():
        last = {}
        for entry in page.of(pointer):
            key = entry.version
            assert entry.state in NEXT[last.get(key, "")], (last.get(key), entry)
            last[key] = entry.state
            if entry.state == "serving":
                assert entry.covered.images == entry.covered.predicted, entry
        assert sum(state == "serving" for state in last.values()) <= 1
        assert [entry.at for entry in page.of(pointer)] == sorted(
            {entry.at for entry in page.of(pointer)}
        )
