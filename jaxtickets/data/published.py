"""CIFAR as its publisher describes it: files, sizes, checksums, class names, statistics."""

from __future__ import annotations

import dataclasses

HEIGHT = WIDTH = 32
PIXELS = 3 * HEIGHT * WIDTH
_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_SITE = "https://www.cs.toronto.edu/~kriz/"


@dataclasses.dataclass(frozen=True)
class Published:
    """A data set as published: everything that a reader of its files has to know.

    Args:
      name: what `load` calls it.
      num_classes: C.
      class_names: C names, in label order.
      mean: of each channel over the training set, pixels scaled to 0..1.
      std: of each channel, as `mean`; population values over all pixels.
      binary_folder: folder, and start of the archive's member names, of the binary version.
      python_folder: the same of the pickled version.
      train_files: the training files of the pickled version; the binary ones are called so with
        `.bin` added.
      test_files: the same of the test set.
      train_records: images per training file.
      test_records: images per test file.
      label_bytes: bytes before the pixels of a binary record; the last is the label.
      label_key: the key of the labels in a pickled file.
      archives: file names of the archives, binary and pickled.
      md5: of the binary archive.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    binary_folder: str
    python_folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    train_records: int
    test_records: int
    label_bytes: int
    label_key: str
    archives: tuple[str, str]
    md5: str

    @property
    def url(self) -> str:
        """The address of the binary archive."""
        return _SITE + self.archives[0]

    def files(self, split: str) -> tuple[str, ...]:
        """The pickled version's files of a split."""
        return self.train_files if split == "train" else self.test_files

    def records(self, split: str) -> int:
        """Images in each file of a split."""
        return self.train_records if split == "train" else self.test_records


CIFAR10 = Published(
    name="cifar10",
    num_classes=10,
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_files=("test_batch",),
    train_records=10_000,
    test_records=10_000,
    label_bytes=1,
    label_key="labels",
    archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)

CIFAR100 = Published(
    name="cifar100",
    num_classes=100,
    class_names=tuple(_FINE.split()),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    train_files=("train",),
    test_files=("test",),
    train_records=50_000,
    test_records=10_000,
    label_bytes=2,
    label_key="fine_labels",
    archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
    md5="03b5dce01913d631647c71ecec9e9cb8",
)
