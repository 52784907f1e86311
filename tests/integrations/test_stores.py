"""What Spark needs of each object store: jars, and certificates."""

import pytest

from mlproject.errors import UserError
from mlproject.integrations import spark_environment, spark_jars, spark_session
from tests.support import certificates


def test_there_are_jars_for_each_store_and_no_other():
    assert {*spark_jars.STORES, ""} == {*spark_jars.MEGABYTES}
    for store, jars in spark_jars.STORES.items():
        assert spark_jars.packages(store).split(",")[1:] == list(jars)
    with pytest.raises(UserError, match=r"Name one of s3, gs, abfss"):
        spark_session.fetch_jars("gcs")


def test_jars_that_were_fetched_for_any_store_are_enough_without_one(monkeypatch, tmp_path):
    monkeypatch.setattr(spark_jars, "cache_folders", lambda: [tmp_path])
    jar = tmp_path / "delta.jar"
    jar.touch()
    (tmp_path / spark_jars._list("gs")).write_text(str(jar))
    assert [str(jar)] == spark_jars.known() == spark_jars.known("gs")
    assert [] == spark_jars.known("s3") == spark_jars.known("abfss")


@pytest.mark.parametrize("store", ["gs", "abfss"])
def test_settings_of_aws_are_none_of_other_stores(monkeypatch, tmp_path, store):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert spark_environment.trust_store(store) is None
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(UserError, match="SSL_CERT_FILE='/nowhere' is no file of certificates"):
        spark_environment.trust_store(store)
    authority, *_ = certificates.write(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    trusted = spark_environment.trust_store(store)
    assert trusted is not None
    named = spark_environment.trust_settings(trusted)
    assert str(trusted) in named["spark.driver.extraJavaOptions"]
    assert str(trusted.parent) not in named["spark.executor.extraJavaOptions"]
    assert trusted.name in named["spark.executor.extraJavaOptions"]
