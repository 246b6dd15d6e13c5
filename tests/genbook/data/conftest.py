"""What all tests of data sets begin with."""

import pytest

from genbook.data import mnist


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no folder of data, and no network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENBOOK_DATA", raising=False)
    monkeypatch.setattr(mnist, "MIRROR", "http://127.0.0.1:9/")  # nobody listens
    return tmp_path / "cache" / "genbook"
