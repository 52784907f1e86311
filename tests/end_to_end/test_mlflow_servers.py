"""Commands beside MLflow servers as they are run: Postgres, artifacts in S3, and credentials."""

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import mlflow
import pytest

import mlproject
from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.lake import queries
from mlproject.service import loop
from mlproject.versions import registry, version_files
from tests.conftest import photos
from tests.support import mlflow_servers, postgres, s3_servers
from tests.support.commands import run_command
from tests.support.s3_proxy import FaultyServer
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PASSWORD = "correct/horse@battery staple"  # noqa: S105 - of the tests' own server
FORMS = (str, partial(quote, safe=""))  # as it is, and as in a URI
TOKEN = "t0ken.of_the-tests~0123456789"  # noqa: S105
DATABASE_PASSWORD = "a/second@password"  # noqa: S105
SECRETS = (TOKEN, *(form(word) for word in (PASSWORD, DATABASE_PASSWORD) for form in FORMS))
AUTH = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 600
"""  # without a cache each request takes a second: it hashes the password


@dataclass(frozen=True)
class Servers:
    """Two MLflow servers on Postgres, and a server of S3 with a bucket for each."""

    s3: str
    proxied: str
    """URL of the one that hands artifacts out, and wants a user and password; both are in it."""
    direct: str
    """URL of the one whose clients use S3 themselves; a proxy before it wants a token."""
    open: str
    """The same without the proxy."""
    databases: tuple[str, ...]

    @property
    def aws(self):
        return {**s3_servers.KEYS, "AWS_ENDPOINT_URL": self.s3}

    def settings(self, kind):
        """The environment of a client."""
        token = {"MLFLOW_TRACKING_TOKEN": TOKEN, **self.aws}
        return {
            "proxied": {"MLFLOW_TRACKING_URI": self.proxied},
            "named": {
                "MLFLOW_TRACKING_URI": f"http://{self.proxied.rpartition('@')[2]}",
                "MLFLOW_TRACKING_USERNAME": "admin",
                "MLFLOW_TRACKING_PASSWORD": PASSWORD,
            },
            "direct": {"MLFLOW_TRACKING_URI": self.direct, **token},
            "apart": {
                "MLFLOW_TRACKING_URI": self.direct,
                "MLFLOW_REGISTRY_URI": self.proxied,
                **token,
            },
        }[kind]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in ("s3", "proxied", "direct")}
    with contextlib.ExitStack() as stack:
        _, s3 = stack.enter_context(s3_servers.running(folders["s3"] / "moto.txt"))
        cluster = stack.enter_context(postgres.running("mlflow", DATABASE_PASSWORD))
        names = ("proxied", "direct")
        databases = {name: postgres.database(cluster, name) for name in names}
        for bucket in names:
            s3_servers.client(s3).create_bucket(Bucket=bucket)
        ini = folders["proxied"] / "auth.ini"
        users = f"sqlite:///{folders['proxied']}/users.db"
        ini.write_text(AUTH.format(database=users, password=PASSWORD))
        options = {
            "proxied": (
                *("--app-name", "basic-auth", "--backend-store-uri", databases["proxied"]),
                *("--artifacts-destination", "s3://proxied"),
            ),
            "direct": (
                *("--backend-store-uri", databases["direct"], "--no-serve-artifacts"),
                *("--default-artifact-root", "s3://direct"),
            ),
        }
        environment = {
            **s3_servers.KEYS,
            "AWS_ENDPOINT_URL": s3,
            "MLFLOW_AUTH_CONFIG_PATH": str(ini),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of no matter here",
        }
        begun = {
            name: stack.enter_context(
                mlflow_servers.starting(folders[name], options=words, **environment)
            )
            for name, words in options.items()
        }
        for started in begun.values():
            mlflow_servers.client(*started)
        proxy = FaultyServer(begun["direct"][1], token=TOKEN)
        stack.enter_context(proxy.running())
        user = f"admin:{quote(PASSWORD, safe='')}"
        url = begun["proxied"][1].replace("://", f"://{user}@")
        yield Servers(s3, url, proxy.url, begun["direct"][1], tuple(databases.values()))


@pytest.fixture
def use(servers, monkeypatch):
    """A function that makes this process a client of servers; an experiment is active then."""
    before = mlflow.get_tracking_uri()
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI", *servers.aws):
        monkeypatch.setenv(name, "")  # MLflow sets some of them below
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "served")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def client_of(kind="", **settings):
        for name, word in {**(servers.settings(kind) if kind else {}), **settings}.items():
            monkeypatch.setenv(name, word)
        client = mlflow_tracking.connect()
        mlflow.set_experiment("served")
        return client

    yield client_of
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with four photos and a lake of them; all that commands write lies in it."""
    found = tmp_path_factory.mktemp("served")
    photos(found / "photos", 4, "red")
    return found


def written(servers, *folders):
    """All that was written anywhere, as one text."""
    texts = [postgres.text(uri) for uri in servers.databases]
    for place in folders:
        files = [path for path in place.rglob("*") if path.is_file()]
        texts += [path.read_bytes().decode(errors="replace") for path in files]
    s3 = s3_servers.client(servers.s3)
    for bucket in ("proxied", "direct"):
        for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
            body = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            texts.append(body.decode(errors="replace"))
    return "\n".join(texts)


def without_secrets(text):
    found = [secret for secret in SECRETS if secret in text]
    assert not found, text[max(0, text.index(found[0]) - 300) :][:600]
    return text


@pytest.fixture
def poor_workers(spark, monkeypatch):
    """Spark's workers have no server and no credentials of this process."""
    nowhere = dict.fromkeys(
        ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "AWS_ENDPOINT_URL"), "http://127.0.0.1:9"
    )
    none = dict.fromkeys(("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"), "none")
    before = spark.sparkContext.environment
    monkeypatch.setattr(spark.sparkContext, "environment", {**before, **nowhere, **none})


@pytest.mark.usefixtures("poor_workers")
@pytest.mark.parametrize("kind", ["proxied", "direct", "apart"])
def test_commands_work_and_nothing_shows_the_credentials(servers, use, folder, kind):
    client = use(kind)
    first, second = (register_colours(f"of-{kind}", reverse=reverse) for reverse in (False, True))
    pointer, lake = f"models:/of-{kind}@champion", ("--lake", str(folder / "lake"))
    report = folder / f"{kind}.html"
    commands = [
        ("ingest", "--source", str(folder / "photos"), *lake),
        ("promote", "--model", first.uri, *lake),
        ("rescore", "--pointers", pointer, *lake),
        ("promote", "--model", second.uri, "--gate", "warn", *lake),
        ("plan", "--pointers", pointer, *lake),
        ("history", "--pointers", pointer, *lake),
        ("report", "--out", str(report), *lake),
    ]
    printed = "".join(run_command(*words).output for words in commands)
    without_secrets(printed + written(servers, folder))
    assert "4 images scored" in printed
    assert pointer in report.read_text()
    where = f"WHERE model_name = 'of-{kind}' AND error IS NULL"
    sql = f"SELECT model_version, count(*) AS images FROM predictions {where} GROUP BY 1"
    rows = queries.query(str(folder / "lake"), f"{sql} ORDER BY 1", ["predictions"]).to_pylist()
    assert [{"model_version": number, "images": 4} for number in (1, 2)] == rows
    assert second.uri == registry.resolve(client, pointer).uri
    files = client.get_model_version_download_uri(second.name, str(second.version))
    assert files.startswith("mlflow-artifacts:/" if kind == "proxied" else "s3://direct/")


def test_versions_are_loaded_from_the_server_of_the_registry(servers, use):
    use("proxied")
    version = register_colours("elsewhere")
    files = version_files.read(version)
    use("apart")
    assert files == version_files.read(registry.resolve(mlflow.MlflowClient(), version.uri))


def test_a_database_is_used_without_a_server(servers, use):
    client = use(MLFLOW_TRACKING_URI=servers.databases[1], **servers.aws)
    version = register_colours("in-database")
    assert version_files.read(version).digest
    place = client.get_model_version_download_uri(version.name, str(version.version))
    assert place.startswith("s3://direct/")


def test_files_that_cannot_be_read_are_named_with_their_place(servers, use, folder):
    client = use("apart")
    version = register_colours("lost")
    registry.move(client, version, alias="champion")
    place = client.get_model_version_download_uri("lost", str(version.version))
    s3, prefix = s3_servers.client(servers.s3), place.removeprefix("s3://direct/")
    for one in s3.list_objects_v2(Bucket="direct", Prefix=prefix)["Contents"]:
        s3.delete_object(Bucket="direct", Key=one["Key"])
    words = ("--pointers", "models:/lost@champion", "--lake", str(folder / "lake"))
    [line] = run_command("rescore", *words, code=2).stderr.splitlines()
    assert f"cannot be read now from {place!r}" in line
    assert "mlflow run . -e promote" in line


def test_a_server_apart_does_not_take_files_outside_object_storage(
    servers, use, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # MLflow's default for artifacts
    use(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/runs.db", MLFLOW_REGISTRY_URI=servers.proxied)
    with pytest.raises(UserError, match=r"does not take files in .*--no-serve-artifacts") as raised:
        register_colours("refused")
    assert 1 == len(without_secrets(str(raised.value)).splitlines())


def test_a_user_and_a_password_may_be_named_apart_from_the_uri(use):
    assert ["Default", "served"] == sorted(one.name for one in use("named").search_experiments())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("proxied", {"MLFLOW_TRACKING_URI": "http://admin:passing-by@{place}"}),
        ("named", {"MLFLOW_TRACKING_PASSWORD": "passing-by"}),
        ("direct", {"MLFLOW_TRACKING_TOKEN": "passing-by"}),
        ("apart", {"MLFLOW_REGISTRY_URI": "http://admin:passing-by@{place}"}),
        ("direct", {"MLFLOW_TRACKING_URI": "postgresql+psycopg2://mlflow:passing-by@{database}"}),
    ],
)
def test_wrong_credentials_are_one_line(servers, use, folder, kind, settings):
    ends = {"place": servers.proxied, "database": servers.databases[1]}
    places = {name: uri.rpartition("@")[2] for name, uri in ends.items()}
    with pytest.raises(UserError, match="refuses access") as raised:
        use(kind, **{name: word.format(**places) for name, word in settings.items()})
    assert next(iter(settings)).replace("TOKEN", "URI") in str(raised.value)
    assert "passing-by" not in without_secrets(str(raised.value))
    assert 1 == len(str(raised.value).splitlines())


def test_a_watch_whose_server_is_away_says_so_without_its_password(servers, use, folder):
    proxy, lines, faults = FaultyServer(servers.open), [], []
    until = time.monotonic() + 120

    def on_health(_):  # after the first reconciliation, and when it works again
        if len(faults) < 2:
            proxy.away.set()

    def on_fault(line):
        faults.append(line)
        proxy.away.clear()

    def stop():
        return f"{loop.ITSELF}: works again" in lines or time.monotonic() > until

    callbacks = {"on_health": on_health, "on_fault": on_fault, "on_message": lines.append}
    with proxy.running() as server:
        use(MLFLOW_TRACKING_URI=server.url.replace("://", "://us:passing-by@"))
        nobody = ["models:/nobody@champion"]
        mlproject.watch(nobody, str(folder / "lake"), interval=0.2, stop=stop, **callbacks)
    assert "://***@127.0.0.1" in faults[-1]
    assert "passing-by" not in "".join([*lines, *faults])
