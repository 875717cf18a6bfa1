"""The nine tasks of GLUE as published: columns, labels, splits, metrics."""

from __future__ import annotations

import dataclasses

from jaxtickets.errors import DataError


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """A task of GLUE: everything that a reader of its files has to know.

    Args:
      name: what `glue` and the Hugging Face and TensorFlow data sets call it.
      folder: its folder in `glue_data`.
      texts: names of the text columns in the libraries' data sets, one or two.
      columns: the same in the header of the TSV files.
      label: the label's column there.
      class_names: names of the labels, in the order of their numbers in the libraries' data sets;
        empty for regression.
      written: what the TSV files write for them, in the same order.
      metrics: what is reported, as `jaxtickets.evaluation` calls it; the first is what the papers
        tabulate.
      validation: names of the labelled splits beside "train".
      files: of those, in the same order.
      header: the columns of files that do not begin with them; empty for those that do.
      ragged: whether rows with too few columns are known to be in the published files; those of
        another number are left out.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    columns: tuple[str, ...]
    label: str
    class_names: tuple[str, ...]
    written: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    validation: tuple[str, ...] = ("validation",)
    files: tuple[str, ...] = ("dev.tsv",)
    header: tuple[str, ...] = ()
    ragged: bool = False

    @property
    def regression(self) -> bool:
        """Whether targets are numbers: STS-B, 0 to 5."""
        return not self.class_names

    @property
    def splits(self) -> tuple[str, ...]:
        """The labelled splits; the test splits have no published labels."""
        return ("train", *self.validation)

    def file(self, split: str) -> str:
        """The name of a split's TSV file."""
        return dict(zip(self.splits, ("train.tsv", *self.files), strict=True))[split]


_PAIR = ("sentence1", "sentence2")
_ENTAILED = ("entailment", "not_entailment")
_BINARY = ("0", "1")

GLUE_TASKS = {
    task.name: task
    for task in (
        GlueTask(
            "cola",
            "CoLA",
            ("sentence",),
            ("sentence",),
            "label",
            ("unacceptable", "acceptable"),
            _BINARY,
            ("matthews", "accuracy"),
            header=("source", "label", "star", "sentence"),
        ),
        GlueTask(
            "sst2",
            "SST-2",
            ("sentence",),
            ("sentence",),
            "label",
            ("negative", "positive"),
            _BINARY,
        ),
        GlueTask(
            "mrpc",
            "MRPC",
            _PAIR,
            ("#1 String", "#2 String"),
            "Quality",
            ("not_equivalent", "equivalent"),
            _BINARY,
            ("accuracy", "f1"),
        ),
        GlueTask("stsb", "STS-B", _PAIR, _PAIR, "score", (), (), ("pearson", "spearman")),
        GlueTask(
            "qqp",
            "QQP",
            ("question1", "question2"),
            ("question1", "question2"),
            "is_duplicate",
            ("not_duplicate", "duplicate"),
            _BINARY,
            ("accuracy", "f1"),
            ragged=True,
        ),
        GlueTask(
            "mnli",
            "MNLI",
            ("premise", "hypothesis"),
            _PAIR,
            "gold_label",
            ("entailment", "neutral", "contradiction"),
            ("entailment", "neutral", "contradiction"),
            validation=("validation_matched", "validation_mismatched"),
            files=("dev_matched.tsv", "dev_mismatched.tsv"),
        ),
        GlueTask(
            "qnli",
            "QNLI",
            ("question", "sentence"),
            ("question", "sentence"),
            "label",
            _ENTAILED,
            _ENTAILED,
        ),
        GlueTask("rte", "RTE", _PAIR, _PAIR, "label", _ENTAILED, _ENTAILED),
        GlueTask("wnli", "WNLI", _PAIR, _PAIR, "label", ("not_entailment", "entailment"), _BINARY),
    )
}
"""The tasks by name.

Names, columns and the order of labels are those of `nyu-mll/glue` on the Hugging Face hub, which
has them from tensorflow-datasets; folders, files and headers those of the archives at
https://gluebenchmark.com/tasks.
"""


def glue_task(name: str) -> GlueTask:
    """The task of GLUE that has that name.

    Raises:
      DataError: there is none.

    >>> glue_task("mnli").validation
    ('validation_matched', 'validation_mismatched')
    """
    if isinstance(name, str) and name in GLUE_TASKS:
        return GLUE_TASKS[name]
    plain = "".join(
        letter for letter in str(name).lower().removeprefix("glue/") if letter.isalnum()
    )
    hint = f" Did you mean {plain!r}?" if plain in GLUE_TASKS else ""
    raise DataError(f"glue: task is one of {', '.join(GLUE_TASKS)}; got {name!r}.{hint}")
