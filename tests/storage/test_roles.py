"""Keys of a role, which a container, a machine or a web identity gets, in every client."""

import contextlib
import http.server
import json

import pytest

from mlproject.storage import aws
from tests.conftest import photos
from tests.support import s3_servers
from tests.support.fresh_processes import run
from tests.support.local_servers import serving
from tests.support.s3_clients import USES_ALL

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that lets only those in whose keys it has made."""
    with s3_servers.running(tmp_path / "moto.txt") as (_, url):
        s3_servers.client(url).create_bucket(Bucket="photos")
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield url


@pytest.fixture
def role(server):
    """The name of a role that may do all with S3."""
    iam = s3_servers.client(server, "iam")
    made = iam.create_role(RoleName="scorer", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="scorer", PolicyName="all", PolicyDocument=policy)
    return made


ROLES = "/latest/meta-data/iam/security-credentials/"


@contextlib.contextmanager
def giving(key):
    """The URL of a server that gives a key to a container, at /keys, and to a machine in EC2."""
    given = json.dumps({"Code": "Success", **key})
    answers = {"/keys": given, ROLES: "scorer", f"{ROLES}scorer": given, "/latest/api/token": "one"}

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = answers.get(self.path, "").encode()
            self.send_response(200 if content else 404)
            self.send_header("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_):
            pass

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)) as url:
        yield url


def require_all_work(source, tmp_path, **environment):
    done = run(USES_ALL, tmp_path, "s3://photos/lake", str(source), **environment)
    assert (0, "3 PAR1\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.spark
@pytest.mark.parametrize(
    "where", ["container", pytest.param("machine", marks=pytest.mark.thorough)]
)
def test_a_container_and_a_machine_have_the_keys_of_their_role(server, role, tmp_path, where):
    made = s3_servers.client(server, "sts").assume_role(RoleArn=role, RoleSessionName="one")
    found = made["Credentials"]
    key = {
        "AccessKeyId": found["AccessKeyId"],
        "SecretAccessKey": found["SecretAccessKey"],
        "Token": found["SessionToken"],
        "Expiration": found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "RoleArn": role,
    }
    source = photos(tmp_path / "source", 3)
    s3_servers.let_in(server, "0")
    with giving(key) as url:
        named = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/keys"}
        if where == "machine":
            named = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": url, "AWS_EC2_METADATA_DISABLED": "false"}
        require_all_work(source, tmp_path, **named)


@pytest.mark.spark
def test_a_web_identity_gets_the_keys_of_a_role(server, role, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("somebody.who.is.known")
    words = {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    for name, word in words.items():
        monkeypatch.setenv(name, word)
    assert aws.credentials().session_token
    require_all_work(photos(tmp_path / "source", 3), tmp_path)
