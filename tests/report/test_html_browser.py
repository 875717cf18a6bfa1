"""The report in a browser: it loads without a complaint and without network, and no viewport scrolls sideways.

A headless Chromium is found on PATH, or named by JAXTICKETS_CHROMIUM. Every test reads numbers that only a page that was laid out gives.
"""

import html as escaping
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import evaluation, pat, results, write_run

import jaxtickets as jt
from jaxtickets.report import html

# Laid out in a frame of that width, because a window of Chromium is never narrower than 500 pixels.
HOST = """<!DOCTYPE html><html><body style="margin:0"><iframe width="{width}" height="844" style="border:0" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
  const frame = document.querySelector("iframe"), inner = frame.contentDocument, root = inner.documentElement;
  const boxes = [...inner.querySelectorAll(".scroll")];
  document.documentElement.dataset.measured = JSON.stringify({{
    innerWidth: frame.contentWindow.innerWidth, scrollWidth: root.scrollWidth, bodyWidth: inner.body.scrollWidth,
    tables: inner.querySelectorAll("table").length, wide: boxes.filter(box => box.scrollWidth > box.clientWidth).length,
    pictures: [...inner.images].map(image => image.naturalWidth), styled: frame.contentWindow.getComputedStyle(inner.body).maxWidth,
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name).filter(name => !name.startsWith("data:")),
    alerted: window.alerted === true,
  }});
}});</script></body></html>"""


@pytest.fixture(scope="session")
def chromium():
    named = os.environ.get("JAXTICKETS_CHROMIUM")
    if named and not shutil.which(named):
        pytest.fail(f"JAXTICKETS_CHROMIUM={named} is no program that can be run.")
    found = named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip(
            "no chromium, chromium-browser or google-chrome on PATH; install one, or name it by JAXTICKETS_CHROMIUM."
        )

    def browse(file, *flags, profile):
        quiet = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
        )
        done = subprocess.run(
            [found, *quiet, "--enable-logging=stderr", "--v=0", *flags, Path(file).as_uri()],
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.decode(), done.stderr.decode(errors="replace")

    return browse


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Everything that a report can hold, and names that try to be obeyed."""
    folder = tmp_path_factory.mktemp("runs")
    long = "a-run-with-a-name-that-no-telephone-has-room-for-" * 2
    write_run(folder / "pat", pat(), results(pat()))
    write_run(
        folder / long,
        pat(),
        results(pat(), name="MCDropout(WideResNet(28, 10, dropout=0.3), 8, 0)" * 3),
    )
    write_run(
        folder / "late",
        jt.dense(1, 16),
        None,
        finished=False,
        name="<script>window.parent.alerted = true</script>",
    )
    (folder / "evaluation.json").write_text(
        json.dumps(evaluation(("edst", "<img src=x onerror='window.parent.alerted = true'>")))
    )
    found = html.read_inputs([folder])
    sections = html.sections(
        found,
        timelines=html.timelines(found, tmp_path_factory.mktemp("figures")),
        command="python " + "x" * 300,
    )
    return html.render("Report", "about", sections)


def complaints(log):
    """Lines that a page wrote to the console."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_viewport_scrolls_sideways(chromium, page, tmp_path, width):
    bare = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page
    )  # which refuses the script that measures
    assert bare != page
    (tmp_path / "host.html").write_text(
        HOST.format(width=width, page=escaping.escape(bare)), encoding="utf-8"
    )
    out, log = chromium(
        tmp_path / "host.html", "--window-size=1400,900", "--dump-dom", profile=tmp_path / "profile"
    )
    told = re.search(r'data-measured="([^"]*)"', out)
    assert told, log[-2000:]
    measured = json.loads(escaping.unescape(told[1]))
    assert measured["innerWidth"] == width
    assert measured["scrollWidth"] <= width
    assert measured["bodyWidth"] <= width
    assert measured["tables"] == page.count("<table>") > 10
    assert measured["pictures"] == [1600] * 3  # eight inches at 200 dots: all three are decoded
    assert measured["styled"] == "1216px"
    assert measured["wide"] > (
        0 if width > 1000 else 5
    )  # tables scroll in their boxes: there is one that no window has room for
    assert measured["fetched"] == []
    assert not measured["alerted"]
    assert complaints(log) == []


def test_the_page_as_it_is_loads_without_a_complaint(chromium, page, tmp_path):
    """With its policy: nothing that it holds is refused by it."""
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    out, log = chromium(tmp_path / "report.html", "--dump-dom", profile=tmp_path / "profile")
    assert out.count("<table>") == page.count("<table>") > 10
    assert "window.parent.alerted" in out  # as text
    assert complaints(log) == []


def test_a_complaint_would_be_seen(chromium, page, tmp_path):
    """The check above can fail: a page that asks for more than its policy allows is complained of."""
    (tmp_path / "bad.html").write_text(
        page.replace("</body>", "<script>alert(1)</script></body>"), encoding="utf-8"
    )
    _, log = chromium(tmp_path / "bad.html", "--dump-dom", profile=tmp_path / "profile")
    assert any("Content Security Policy" in line for line in complaints(log))


def test_it_prints_on_paper(chromium, page, tmp_path):
    """No table is cut: the last column of the widest is on paper."""
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    chromium(
        tmp_path / "report.html",
        f"--print-to-pdf={tmp_path / 'report.pdf'}",
        "--no-pdf-header-footer",
        profile=tmp_path / "profile",
    )
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    reader = shutil.which("pdftotext")
    if not reader:
        pytest.skip("pdftotext (poppler-utils) is not installed.")
    text = subprocess.run(
        [reader, "-layout", str(tmp_path / "report.pdf"), "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for words in ("What was run", "Timeline of late", "severity 2"):
        assert words in text
    # Of the widest table, the diversity of the members, all twelve columns.
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["edst", "0.031"])
    assert row == [
        "edst",
        "0.031",
        "0.073",
        "0.360",
        "0.200",
        "0.100",
        "0.730",
        "0.91",
        "1.50",
        "-0.02",
        "0.05",
        "0.40",
    ]
