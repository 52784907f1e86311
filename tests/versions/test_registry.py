import pytest

from mlproject.errors import UserError
from mlproject.versions import registry, version_files
from tests.support.versions import register_colours


@pytest.fixture(scope="module")
def version(store):
    return register_colours("known")


def test_a_number_an_alias_a_stage_and_latest_name_the_same_version(client, version):
    registry.move(client, version, alias="champion")
    registry.move(client, version, stage="staging")
    alias = registry.pointer(version, alias="champion")
    stage = registry.pointer(version, stage="staging")
    assert ("models:/known@champion", "models:/known/Staging") == (alias, stage)
    for uri in (alias, stage, "models:/known/1", "models:/known/latest"):
        found = registry.resolve(client, uri)
        assert (version.uri, version.model_id) == (found.uri, found.model_id)


def test_only_a_uri_of_an_alias_or_stage_is_kept_as_pointer(client, version):
    registry.move(client, version, alias="champion")
    assert "models:/known@champion" == registry.resolve(client, "models:/known@champion").pointer
    assert registry.resolve(client, "models:/known/1").pointer is None


def test_a_model_made_again_has_the_same_number_and_another_id(client):
    first = register_colours("again")
    client.delete_registered_model("again")
    second = register_colours("again")
    assert first.uri == second.uri
    assert first.model_id != second.model_id


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/unknown/1", "'known'"),
        ("models:/known/7", "versions: 1"),
        ("models:/known@nobody", "'champion'"),
        ("models:/known/Production", "-P stage=Production"),
        ("models:/known/Nowhere", "Staging, Production"),
        ("known", "models:/NAME@ALIAS"),
        ("models:/known", "models:/NAME@ALIAS"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_that_exist(client, version, uri, expected):
    registry.move(client, version, alias="champion")
    with pytest.raises(UserError) as raised:
        registry.resolve(client, uri)
    assert expected in str(raised.value)
    assert 1 == len(str(raised.value).splitlines())


@pytest.mark.parametrize("alias", ["latest", "v1", "no spaces", ""])
def test_an_alias_that_mlflow_reserves_is_refused_in_one_line(client, version, alias):
    with pytest.raises(UserError) as raised:
        registry.move(client, version, alias=alias)
    assert 1 == len(str(raised.value).splitlines())


def test_a_stage_names_one_version(client, version):
    second = register_colours("known")
    registry.move(client, version, stage="Production")
    registry.move(client, second, stage="Production")
    registry.move(client, version, stage="Production")
    assert version.uri == registry.resolve(client, "models:/known/Production").uri


def test_a_model_made_again_does_not_get_the_digest_of_the_deleted_one(client):
    deleted = register_colours("remade_by_name")
    files = version_files.read(deleted)
    client.delete_registered_model("remade_by_name")
    with pytest.raises(UserError, match="it was deleted"):
        version_files.require_unchanged(client, deleted, files)
    again = register_colours("remade_by_name", reverse=True)
    assert deleted.uri == again.uri
    with pytest.raises(UserError, match="another model has its number"):
        version_files.require_unchanged(client, deleted, files)
    version_files.require_unchanged(client, again, version_files.read(again))
