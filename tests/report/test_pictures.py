"""Every picture: its .csv is the data drawn, and what is missing or undefined does no harm."""

import csv
import itertools
import math

import numpy as np
import pytest
from matplotlib.image import imread

from jaxtickets import report
from jaxtickets.errors import ReportError
from jaxtickets.report import canvas


def read(picture):
    """The rows beside a picture: numbers as floats, nothing as None. The picture itself is no empty page."""
    pixels = imread(picture)
    assert pixels[..., :3].std() > 0.02
    with picture.with_suffix(".csv").open(newline="") as file:
        return [
            {name: number(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]


def number(text):
    try:
        return float(text) if text else None
    except ValueError:
        return text


def diagram(bins=3):
    return {
        "count": [0, 20, 5][:bins],
        "confidence": [None, 0.55, 0.9][:bins],
        "accuracy": [None, 0.5, 0.8][:bins],
    }


def row(name, members=3, severities=(1, 2)):
    scores = {"accuracy": 0.9, "nll": 0.3, "ece": 0.02, "brier": 0.1}
    sets = [
        {
            "corruption": corruption,
            "severity": severity,
            "accuracy": 0.9 - 0.1 * severity - less,
            "nll": None,
            "ece": 0.05,
        }
        for (corruption, less), severity in itertools.product(
            (("gaussian_noise", 0.0), ("fog", 0.1)), severities
        )
    ]
    sizes = {
        str(size): {"mean": 0.8 + size / 100, "min": 0.8, "max": 0.9, "standard_deviation": 0.01}
        for size in range(1, members + 1)
    }
    return {
        "name": name,
        "evaluation": {
            "ensemble": scores,
            "members_mean": scores,
            "reliability": {"ensemble": diagram(), "members": [diagram()] * members},
            "parts": {
                "corrupted": {"generated": True, "sets": sets, "mean": scores},
                "features": {"layers": ["a/Conv_0", "a/Conv_1"], "kl": [0.125, None]},
            },
        },
        "subsets": {"sizes": [1, 2, 3][:members], "accuracy": sizes},
    }


@pytest.fixture
def found():
    return {
        "test": {"name": "digits", "examples": 25},
        "rows": [row("EDST"), row("one, alone", members=1)],
    }


@pytest.mark.parametrize("members", [1, 2, 3, 13])
def test_a_matrix_with_a_hole(members, tmp_path):
    matrix = np.random.default_rng(0).uniform(size=(members, members))
    matrix[0, -1] = np.nan
    file = report.draw_matrix(matrix, tmp_path / "matrix.png", title="KL", label="nats")
    rows = read(file)
    assert list(rows[0]) == ["member", "other member", "KL (nats)"]
    written = np.array([line["KL (nats)"] for line in rows], float).reshape(members, members)
    np.testing.assert_array_equal(written, matrix)


def test_a_matrix_says_what_does_not_fit(tmp_path):
    with pytest.raises(ReportError, match=r"shape \(2, 3\), wanted \[M, M\]"):
        report.draw_matrix(np.zeros((2, 3)), tmp_path / "no.png", title="", label="")
    with pytest.raises(ReportError, match="got 1 for a matrix of 2"):
        report.draw_matrix(
            [[0, None], [None, 0]], tmp_path / "no.png", title="", label="", names=["a"]
        )
    with pytest.raises(ReportError, match="wanted numbers"):
        report.draw_matrix([["a"]], tmp_path / "no.png", title="", label="")
    assert not list(tmp_path.iterdir())


def test_colours_are_of_the_pairs_and_not_of_the_diagonal(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        report.pictures.matrices, "save_figure", lambda figure, *_: figures.append(figure)
    )
    matrix = [[1.0, 0.2], [0.3, 1.0]]
    report.draw_matrix(matrix, tmp_path / "a.png", title="", label="")
    report.draw_matrix(matrix, tmp_path / "b.png", title="", label="", diagonal=True)
    assert [figure.axes[0].images[1].get_clim() for figure in figures] == [(0.2, 0.3), (0.2, 1.0)]


@pytest.mark.parametrize("members", [1, 3])
def test_reliability(members, found, tmp_path):
    evaluation = row("x", members)["evaluation"]
    rows = read(report.draw_reliability(evaluation, tmp_path / "reliability.png"))
    predictors = (
        ["ensemble", "all members", "member 0", "member 1", "member 2"]
        if members == 3
        else ["one network"]
    )
    assert list(dict.fromkeys(line["predictor"] for line in rows)) == predictors
    for key, values in diagram().items():
        name = "examples" if key == "count" else f"{key} (share)"
        assert [line[name] for line in rows if line["predictor"] == predictors[0]] == values
    assert {line["examples"] for line in rows if line["predictor"] == "all members"} <= {0, 60, 15}
    assert report.draw_reliability({}, tmp_path / "none.png") is None


def test_the_legend_has_the_calibration_error_and_its_bins(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        report.pictures.calibration, "save_figure", lambda figure, *_: figures.append(figure)
    )
    report.draw_reliability(row("x")["evaluation"], tmp_path / "a.png")
    labels = [text.get_text() for text in figures[0].legends[0].texts]
    assert labels[1:] == [
        "ensemble: ECE 2.00 % (3 bins)",
        "its 3 members: mean ECE 2.00 % (3 bins)",
    ]


def test_subsets(found, tmp_path):
    rows = read(report.draw_subsets(found, tmp_path / "subsets.png"))
    assert [(line["row"], line["members"]) for line in rows] == [
        ("EDST", 1),
        ("EDST", 2),
        ("EDST", 3),
        ("one, alone", 1),
    ]
    assert [line["accuracy (mean, share)"] for line in rows] == [
        0.8 + size / 100 for size in (1, 2, 3, 1)
    ]
    assert (
        report.draw_subsets(found | {"rows": [row("x") | {"subsets": None}]}, tmp_path / "none.png")
        is None
    )


def test_severities_are_means_over_corruptions(found, tmp_path):
    rows = read(report.draw_severities(found, tmp_path / "severities.png"))
    name = "accuracy (share, mean over corruptions)"
    # Clean .9; severity 1 of noise .8 and fog .7; severity 2 of .7 and .6.
    assert [line[name] for line in rows if line["row"] == "EDST"] == pytest.approx(
        [0.9, 0.75, 0.65]
    )
    assert [line["nll (nats per example, mean over corruptions)"] for line in rows][:3] == [
        0.3,
        None,
        None,
    ]


def test_corruptions_are_means_over_severities(found, tmp_path):
    rows = read(report.draw_corruptions(found, tmp_path / "corruptions.png"))
    assert [line["corruption"] for line in rows] == ["gaussian_noise", "fog"] * 2
    assert [line["accuracy (share, mean)"] for line in rows][:2] == pytest.approx([0.75, 0.65])


def test_generated_sets_are_called_so(found, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        report.pictures.corruptions, "save_figure", lambda figure, *_: figures.append(figure)
    )
    report.draw_severities(found, tmp_path / "a.png")
    for each in found["rows"]:
        each["evaluation"]["parts"]["corrupted"]["generated"] = False
    report.draw_corruptions(found, tmp_path / "b.png")
    assert ["generated" in figure.get_suptitle() for figure in figures] == [True, False]


def test_depth(found, tmp_path):
    rows = read(report.draw_depth(found, tmp_path / "depth.png"))
    assert [(line["depth"], line["layer"]) for line in rows][:2] == [
        (1, "a/Conv_0"),
        (2, "a/Conv_1"),
    ]
    assert [line["KL between features (nats, mean over pairs)"] for line in rows][:2] == [
        0.125,
        None,
    ]


@pytest.mark.parametrize("name", ["severities", "corruptions", "depth"])
def test_nothing_measured_is_no_picture(name, found, tmp_path):
    for each in found["rows"]:
        each["evaluation"]["parts"] = {}
    assert getattr(report, f"draw_{name}")(found, tmp_path / "none.png") is None
    assert not list(tmp_path.iterdir())


def test_paths(tmp_path):
    pair = {
        "t": [0.0, 0.5, 1.0],
        "loss": [0.1, 2.0, math.nan],
        "accuracy": [0.9, 0.3, None],
        "barrier": 1.9,
    }
    rows = read(report.draw_paths(pair, tmp_path / "one.png"))
    assert [line["loss (nats)"] for line in rows] == [0.1, 2.0, None]
    assert [line["accuracy (share)"] for line in rows] == [0.9, 0.3, None]
    many = [pair | {"name": f"{i}", "loss": [0.1, float(i), 0.2]} for i in range(21)]
    assert [line["loss (nats)"] for line in read(report.draw_paths(many, tmp_path / "many.png"))][
        1::3
    ] == list(range(21))
    with pytest.raises(ReportError, match="'pair 0' has 3 t, 1 loss, 3 accuracy"):
        report.draw_paths(pair | {"loss": [0.1]}, tmp_path / "no.png")
    with pytest.raises(ReportError, match="got none"):
        report.draw_paths([], tmp_path / "no.png")


def masks(seed, layers=12):
    rng = np.random.default_rng(seed)
    each = {
        f"Conv_{i}": {"kernel": rng.uniform(size=(3, 3, 2, 2 + i)) < 0.3, "bias": np.array(True)}
        for i in range(layers)
    }
    return {"params": each}


def test_layers_are_counted_in_order(tmp_path):
    tickets = [masks(0), masks(1)]
    rows = read(report.draw_layers(tickets, tmp_path / "layers.png"))
    assert [line["layer"] for line in rows] == [
        f"params/Conv_{i}/kernel" for i in range(12)
    ]  # not 0, 1, 10, 11, 2
    for i, line in enumerate(rows):
        shares = [ticket["params"][f"Conv_{i}"]["kernel"].mean() for ticket in tickets]
        assert [line["ticket 0 (share)"], line["ticket 1 (share)"]] == shares
        assert (line["least (share)"], line["most (share)"], line["weights"]) == (
            min(shares),
            max(shares),
            18 * (2 + i),
        )
        assert line["mean (share)"] == pytest.approx(np.mean(shares))


def test_layers_of_one_ticket_and_of_nothing(tmp_path):
    assert len(read(report.draw_layers([masks(0, layers=100)], tmp_path / "many.png"))) == 100
    assert report.draw_layers([{"w": np.array(True)}], tmp_path / "dense.png") is None
    with pytest.raises(ReportError, match="ticket 1's mask has another tree"):
        report.draw_layers([masks(0), masks(1, layers=3)], tmp_path / "no.png")
    with pytest.raises(ReportError, match="got none"):
        report.draw_layers([], tmp_path / "no.png")


def test_equal_pictures_are_equal_files(found, tmp_path):
    for ending in ("png", "pdf", "svg"):
        bytes_ = [
            report.draw_depth(found, tmp_path / f"same.{ending}").read_bytes() for _ in range(2)
        ]
        assert bytes_[0] == bytes_[1]


def test_no_matplotlib_no_picture(found, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert canvas.new_figure((1, 1)) is None
    assert report.draw_depth(found, tmp_path / "none.png") is None
    assert report.draw_matrix([[1.0]], tmp_path / "none.png", title="", label="") is None
    assert not list(tmp_path.iterdir())


def test_series_differ_in_more_than_colour():
    styles = [canvas.series_style(i) for i in range(30)]
    assert len({(style["marker"], style["ls"]) for style in styles}) == 30  # in grey too
    assert len({style["marker"] for style in styles[:10]}) == 10


def test_a_plane(tmp_path):
    grid = [[0.1, 0.2, 4.0], [0.2, None, 2.0]]  # of an infinite loss nothing is drawn
    found = {
        "x": [-1.0, 0.0, 1.0],
        "y": [0.0, 2.0],
        "loss": grid,
        "accuracy": [[0.9, 0.8, 0.1], [0.8, 0.5, 0.2]],
        "corners": [
            {"ticket": n, "x": x, "y": y, "loss": 0.2, "accuracy": 0.8}
            for n, (x, y) in enumerate([(0.0, 0.0), (1.0, 0.0), (0.0, 2.0)])
        ],
    }
    picture = report.draw_plane(found, tmp_path / "plane.png", names=("parent", "a", "b"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    with picture.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss (nats)"] or "nan") for row in rows][:3] == grid[0]
    assert [(row["x"], row["y"]) for row in rows][3] == ("-1.0", "2.0")
    with pytest.raises(ReportError, match="names: got 1, wanted one for each of 3"):
        report.draw_plane(found, tmp_path / "plane.png", names=("parent",))
    with pytest.raises(ReportError, match="2 places of 2"):
        report.draw_plane(found | {"x": [0.0, 1.0]}, tmp_path / "plane.png")
