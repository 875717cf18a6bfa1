"""The digits, the download, and what importing costs."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from others import others

from jaxtickets.data import DataError, digits, load, pair
from jaxtickets.data.download import fetch


def test_digits_are_all_there_once_and_balanced():
    train, test = pair("digits")
    everything, labels = others("sklearn.datasets").load_digits(return_X_y=True)
    ours = sorted(
        zip(
            np.concatenate([train.x, test.x]).reshape(1797, 64).tolist(),
            [*train.y, *test.y],
            strict=True,
        )
    )
    assert ours == sorted(zip(everything.tolist(), labels, strict=True))
    assert (len(train), len(test), train.x.dtype, train.x.max(), train.y.dtype) == (
        1347,
        450,
        np.uint8,
        16,
        np.int32,
    )
    share = np.bincount(test.y) / np.bincount(labels)
    assert abs(share - 0.25).max() < 1 / 174
    assert load("digits").fingerprint() == digits().fingerprint() != test.fingerprint()


def test_digits_are_standardised_and_shifted():
    train = digits()
    prepared = np.asarray(train.prepare(train.x))
    assert prepared.dtype == np.float32
    assert abs(prepared.mean()) < 1e-3
    assert abs(prepared.std() - 1) < 1e-3
    assert train.augment is not None
    shifted = np.asarray(train.augment(jax.random.key(0), train.x))
    assert shifted.shape == train.x.shape
    assert (
        0.8 < (shifted != train.x).any((1, 2, 3)).mean() < 0.95
    )  # 8 of 9 places move it: .889, 6 deviations are .05


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtickets\[vision\]'"):
        digits()


class Site(http.server.BaseHTTPRequestHandler):
    """Serves /whole; breaks /short off; has nothing else."""

    body = b"published" * 100_000

    def do_GET(self):
        if self.path not in ("/whole", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body if self.path == "/whole" else self.body[:1000])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_is_whole_or_not_at_all(tmp_path, site, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    md5, target = hashlib.md5(Site.body).hexdigest(), tmp_path / "new" / "archive"
    for path, wrong, error, message in (
        ("/short", md5, DataError, "1,000 bytes with md5"),
        ("/whole", "0" * 32, DataError, f"md5 {md5}, 0000"),
        ("/missing", md5, OSError, "404"),
    ):
        with pytest.raises(error, match=message):
            fetch(site + path, wrong, target, timeout=5)
        assert not list(tmp_path.rglob("archive*"))
    assert fetch(site + "/whole", md5, target, timeout=5) == target
    assert target.read_bytes() == Site.body
    assert list(target.parent.iterdir()) == [target]


def test_importing_is_light():
    """In a fresh process, with an unwritable home: nothing heavy is imported, nothing is written."""
    heavy = [
        "sklearn",
        "tensorflow_datasets",
        "tensorflow",
        "PIL",
        "rich",
        "flax",
        "optax",
        "orbax",
        "transformers",
        "torch",
    ]
    code = f"import sys, json, jaxtickets.data; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": "/nonexistent"},
    )
    assert json.loads(done.stdout) == []
