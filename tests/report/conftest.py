"""What tests of the report share: the papers' rows, and a finished run."""

from pathlib import Path

import pytest
from run_folders import pat, results, write_run


@pytest.fixture
def published(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent.parent / "experiments"))
    from support import published

    return published.paper_rows()


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "pat_ar-seed0", pat(), results(pat()))
