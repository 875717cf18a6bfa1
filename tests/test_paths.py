"""The door for paths: what is meant, and what is none."""

from pathlib import Path

import pytest

from jaxtickets import data
from jaxtickets.errors import DataNotFoundError
from jaxtickets.files import paths


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder: pathlib cannot expand `~`."""

    def fail(self):
        if str(self).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return self

    monkeypatch.setattr(Path, "expanduser", fail)


def test_paths_are_absolute_from_where_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert paths.given("a/b") == tmp_path / "a" / "b"
    assert paths.given(Path("~/a")) == Path("/home/somebody/a")
    assert paths.given("/a/../b") == Path("/a/../b")  # a may be a link
    assert paths.given("x~") == tmp_path / "x~"


@pytest.mark.parametrize("path", ["", "  ", "a\0b", b"a", None, 3, ["a"]])
def test_what_is_no_path_is_an_error_that_names_the_argument(path):
    with pytest.raises(
        ValueError,
        match=r"^data_dir is (a path, as text or a pathlib.Path; got|empty; name a file or folder)",
    ):
        paths.given(path, "data_dir")


def test_without_a_home_a_tilde_is_an_error_and_the_cache_is_done_without(
    homeless, tmp_path, monkeypatch
):
    with pytest.raises(
        ValueError,
        match=r"out is '~/x', and there is no home folder here that ~ stands for; write the path out",
    ):
        paths.given("~/x", "out")
    assert paths.in_home("~/.cache/jaxtickets") is None
    monkeypatch.delenv("JAXTICKETS_DATA", raising=False)
    with pytest.raises(DataNotFoundError, match=r"there is no home folder"):
        data.cifar10("test", download=False)
    with pytest.raises(DataNotFoundError, match=r"there is no home folder for it; give data_dir"):
        data.cifar10("test")


def test_a_working_folder_that_is_gone_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(
        ValueError, match="the working folder that it starts from is gone; give an absolute path"
    ):
        paths.given("a")
