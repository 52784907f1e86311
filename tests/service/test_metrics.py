"""The Prometheus metrics of a watch, as a server of Prometheus reads them."""

import re
import socket
import urllib.request

import pytest

from mlproject.errors import UserError
from mlproject.ingestion.new_images import BatchProgress
from mlproject.service.metrics import Metrics, address, served
from mlproject.service.state import WatchState
from tests.support.examples import PROJECT
from tests.support.lakes import add_images, scored


def read(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_what_a_watch_does_is_counted_and_read_over_http(lake):
    add_images(lake, range(3))
    state = WatchState()
    metrics = Metrics(state)
    with served(metrics, "127.0.0.1:0") as port:
        before = read(port)
        assert 0 == before["mlproject_watch_backlog_images"]
        state.backlog, state.aliases = 7, 2
        metrics.committed(40)
        metrics.scored(scored(lake, 40))
        count = metrics.ingesting()
        for files in (10, 25, 5):  # the last one has begun anew
            count(BatchProgress(files, files * 100, 30, 3000))
        found = read(port)
    wanted = {
        "backlog_images": 7,
        "aliases": 2,
        "images_scored_total": 40,
        "images_per_second": 40,
        "files_ingested_total": 30,
        "ingested_bytes_total": 3000,
        'commits_total{table="predictions"}': 1,
        'commits_total{table="images"}': 3,
    }
    assert {f"mlproject_watch_{name}": value for name, value in wanted.items()}.items() <= (
        found.items()
    )


def test_the_guide_names_every_metric():
    guide = (PROJECT / "docs" / "how-to" / "watch.md").read_text(encoding="utf-8")
    families = [one for one in Metrics(WatchState()).registry.collect() if "mlproject" in one.name]
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    assert names == set(re.findall(r"`(mlproject_watch_\w+)`", guide))


@pytest.mark.parametrize(
    ("given", "expected"),
    [("10.0.0.1:1", ("10.0.0.1", 1)), (":9", ("", 9)), ("[::1]:65535", ("::1", 65_535))],
)
def test_an_address_is_host_and_port(given, expected):
    assert expected == address("metrics", given)


@pytest.mark.parametrize("given", ["here", "1", "1:", "a:b", "a:65536", "a:-1"])
def test_another_address_is_an_error(given):
    with pytest.raises(UserError, match="is not HOST:PORT"):
        address("metrics", given)


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_where_one_cannot_listen_is_an_error_in_one_line(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = f"{host}:{taken.getsockname()[1]}"
        with (
            pytest.raises(UserError, match="Cannot serve metrics") as error,
            served(Metrics(WatchState()), given),
        ):
            pass
    assert 1 == len(str(error.value).splitlines())
