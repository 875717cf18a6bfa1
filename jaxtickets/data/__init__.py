"""Data sets one line away, images augmented inside the compiled step, texts as token ids, and a check of arrays of your own.

>>> from jaxtickets.data import load
>>> load("digits")
Dataset(digits: 1347 examples, x=uint8[1347, 8, 8, 1], classes=10)
"""

from jaxtickets.arrays import from_arrays
from jaxtickets.data import made_up
from jaxtickets.data.augment import CropFlip, Standardise
from jaxtickets.data.bundled import digits
from jaxtickets.data.cifar import cifar10, cifar100
from jaxtickets.data.cifar_c import cifar10_c, cifar100_c
from jaxtickets.data.corrupted import CorruptedSet, CorruptedSets, corrupted, noisy
from jaxtickets.data.corruptions import CORRUPTIONS
from jaxtickets.data.errors import DataError, DataNotFoundError
from jaxtickets.data.glue import glue
from jaxtickets.data.glue_tasks import GLUE_TASKS, GlueTask
from jaxtickets.data.image_stream import ImageStream, ImageTest
from jaxtickets.data.imagenet import image_test, image_train, imagenet, imagenet_a
from jaxtickets.data.imagenet_c import CorruptedImages, imagenet_c
from jaxtickets.data.loading import load, pair
from jaxtickets.data.made_up import paraphrases
from jaxtickets.data.svhn import svhn

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
    "made_up",
    "noisy",
    "pair",
    "paraphrases",
    "svhn",
]
