"""Fixtures: an environment in which nobody has set anything for AWS."""

import os

import pytest


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """An environment without any settings of AWS, and without certificates of one's own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "SSL_CERT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
