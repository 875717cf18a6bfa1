"""Data sets by name, images augmented inside the compiled step, texts as token ids.

Arrays of your own are checked.

>>> from jaxtickets.data import load
>>> load("digits")
Dataset(digits: 1347 examples, x=uint8[1347, 8, 8, 1], classes=10)
"""

from jaxtickets.data import synthetic_text
from jaxtickets.data.augment import CropFlip, Standardise
from jaxtickets.data.cifar import cifar10, cifar100
from jaxtickets.data.cifar_c import cifar10_c, cifar100_c
from jaxtickets.data.corrupted_sets import CorruptedSet, CorruptedSets, corrupted, noisy
from jaxtickets.data.corruptions import CORRUPTIONS
from jaxtickets.data.digits_set import digits
from jaxtickets.data.glue_loading import glue
from jaxtickets.data.glue_tasks import GLUE_TASKS, GlueTask
from jaxtickets.data.image_stream import ImageStream, ImageTest
from jaxtickets.data.imagenet_c_folders import CorruptedImages, imagenet_c
from jaxtickets.data.imagenet_folders import image_test, image_train, imagenet, imagenet_a
from jaxtickets.data.loading import load, pair
from jaxtickets.data.svhn_files import svhn
from jaxtickets.data.synthetic_text import paraphrases
from jaxtickets.dataset.arrays import from_arrays
from jaxtickets.errors import DataError, DataNotFoundError

__all__ = [
    "CORRUPTIONS",
    "GLUE_TASKS",
    "CorruptedImages",
    "CorruptedSet",
    "CorruptedSets",
    "CropFlip",
    "DataError",
    "DataNotFoundError",
    "GlueTask",
    "ImageStream",
    "ImageTest",
    "Standardise",
    "cifar10",
    "cifar10_c",
    "cifar100",
    "cifar100_c",
    "corrupted",
    "digits",
    "from_arrays",
    "glue",
    "image_test",
    "image_train",
    "imagenet",
    "imagenet_a",
    "imagenet_c",
    "load",
    "noisy",
    "pair",
    "paraphrases",
    "svhn",
    "synthetic_text",
]
