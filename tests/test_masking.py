"""Secrets in text: what is masked, and what stays readable."""

import pytest

from mlproject.errors import MachineError, RefusedError, UserError, first_line
from mlproject.integrations.outages import error_message
from mlproject.masking import is_ambiguous, mask

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TEXTS = [
    # user and password of a URI
    ("no http://user:password@host:5000/x.", "no http://***@host:5000/x."),
    ("URI='https://user:pass%40word@host'", "URI='https://***@host'"),
    ("postgresql+psycopg2://user:a@host:5432/db", "postgresql+psycopg2://***@host:5432/db"),
    ("mysql://user:12345@host", "mysql://***@host"),
    ("redis://:password@host:6379/0", "redis://***@host:6379/0"),
    ("s3://KEY:a/b+c=@bucket/photos", "s3://***@bucket/photos"),
    ("http://user:p@ss@host", "http://***@host"),
    ("http://user:p/s#s@host", "http://***@host"),
    ("http://a:b@one, http://c:d@two", "http://***@one, http://***@two"),
    ("git+https://ghp_0123@github.com/us/it", "git+https://***@github.com/us/it"),
    # by name
    ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
    ("password='two words' port=1", "password=*** port=1"),
    ("jdbc:x://host/db?user=u&password=a&ssl=1", "jdbc:x://host/db?user=u&password=***&ssl=1"),
    ("DRIVER=x;UID=u;PWD=a;", "DRIVER=x;UID=u;PWD=***;"),
    ("{'user': 'u', 'password': 'a \"b'}", "{'user': 'u', 'password': '***'}"),
    ('{"token":"a"}', '{"token":"***"}'),
    ("MLFLOW_TRACKING_TOKEN=abc mlflow", "MLFLOW_TRACKING_TOKEN=*** mlflow"),
    (f"AWS_SECRET_ACCESS_KEY={KEY}", "AWS_SECRET_ACCESS_KEY=***"),
    # requests
    ("Authorization: Bearer abc", "Authorization: Bearer ***"),
    ("{'Authorization': 'Basic dTpw'}", "{'Authorization': 'Basic ***'}"),
    ("Bearer eyJhbGciOiJIUzI1.e30.x-y was refused", "Bearer *** was refused"),
    (
        "https://b.s3.eu.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential=A%2F1&"
        "X-Amz-Security-Token=F//x&X-Amz-Signature=0a: 403",
        "https://b.s3.eu.amazonaws.com/k?X-Amz-Date=1&X-Amz-Credential=***&"
        "X-Amz-Security-Token=***&X-Amz-Signature=*** 403",
    ),
    ("https://b/k?AWSAccessKeyId=A&Signature=s", "https://b/k?AWSAccessKeyId=***&Signature=***"),
    ("fs.azure.account.key.a.net=x%2F is", "fs.azure.account.key.a.net=*** is"),
    ("AccountName=a;AccountKey=xyz==;", "AccountName=a;AccountKey=***;"),
    ("https://a.net/c?sp=r&sig=x%2F", "https://a.net/c?sp=r&sig=***"),
]
READABLE = [
    "",
    "models:/photos@champion",
    "http://127.0.0.1:5000/models/photos@champion",
    "http://[::1]:5000/a@b",
    "postgresql://user@host:5432/db",
    "abfss://container@account.dfs.core.windows.net/photos",
    "s3://bucket/folder:1/portrait@2x.jpg",
    "see http://host:5000 or write to us@example.org",
    "sqlite:////home/us/mlflow.db",
    "Bearer authentication is required, the password: none",
    "export MLPROJECT_WEBHOOK_SECRET=$(python -c 'import secrets; print(secrets.token_hex(32))')",
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    '{"action": "score", "batch_images": 0}',
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_a_secret_is_known_by_what_stands_around_it(text, expected):
    assert expected == mask(text, {})
    assert expected == mask(expected, {})


@pytest.mark.parametrize("text", READABLE)
def test_other_text_stays_as_it_is(text):
    assert text == mask(text, {})


@pytest.mark.parametrize(
    ("name", "value", "printed"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "correct horse", "correct horse"),
        ("MLFLOW_TRACKING_PASSWORD", "correct horse", "correct%20horse"),
        ("MLFLOW_TRACKING_TOKEN", "abc.def-ghi", "abc.def-ghi"),
        ("AWS_SECRET_ACCESS_KEY", KEY, KEY),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY, KEY),
        ("AZURE_STORAGE_ACCESS_KEY", KEY, KEY),
        ("PGPASSWORD", "correct horse", "correct horse"),
        ("MLFLOW_TRACKING_URI", "postgresql://u:a%2Fb%40cdefg@h/db", "a/b@cdefg"),
        ("MLFLOW_REGISTRY_URI", "http://u:a%2Fb%40cdefg@h", "a%2Fb%40cdefg"),
    ],
)
def test_a_secret_of_the_environment_is_masked_wherever_it_stands(name, value, printed):
    assert 'no "***" there' == mask(f'no "{printed}" there', {name: value})


def test_a_short_value_of_the_environment_hides_no_words():
    assert "photos of us" == mask("photos of us", {"PGPASSWORD": "photos"})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://u:p@ss@h/db", True),
        ("http://u:p/ss@h", True),
        ("http://u:p%2Fss@h", False),
        ("http://host:5000/a@b", False),
        ("sqlite:////home/a:b@c/mlflow.db", False),
        ("", False),
    ],
)
def test_a_password_that_is_not_percent_encoded_is_noticed(uri, expected):
    assert expected == is_ambiguous(uri)


@pytest.mark.parametrize("kind", [UserError, RefusedError, MachineError])
def test_errors_contain_no_secret(kind):
    assert "http://***@host is away" == str(kind("http://user:password@host is away"))


@pytest.mark.parametrize("message_of", [first_line, error_message])
def test_messages_of_libraries_contain_no_secret(message_of):
    assert "http://***@host" == message_of(ValueError("http://user:password@host\nmore"))
