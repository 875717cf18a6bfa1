"""`load("tfds:...")` and `load("hf:...")`: sets written by the libraries themselves, with no network."""

import io

import numpy as np
import pytest
from others import others

from jaxtickets.data import DataError, DataNotFoundError, load, pair


def images(count, shape=(6, 5, 3), seed=0, classes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, classes, count)


@pytest.fixture
def tfds_set(tmp_path):
    """`tfds_set(splits, features, name) -> folder`, array_record."""
    tfds = others("tensorflow_datasets")
    others("array_record.python.array_record_module")

    def write(splits, features=None, name="pets", supervised=None):
        folder = tmp_path / "tfds" / name / "1.0.0"
        folder.mkdir(parents=True)
        own, _, config = name.partition("/")
        kinds = features or {
            "id": tfds.features.Text(),
            "picture": tfds.features.Image(shape=(None, None, 3)),
            "kind": tfds.features.ClassLabel(names=["cat", "dog", "fish"]),
        }
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                name=own,
                config_name=config or None,
                version=tfds.core.Version("1.0.0"),
                data_dir=str(folder),
                module_name="none",
            ),
            features=tfds.features.FeaturesDict(kinds),
            supervised_keys=supervised,
        )
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=4, file_format="array_record"
        )
        writer.initialize_splits(list(splits))
        writer.add_examples(splits)
        writer.close_all()
        return folder

    return write


def rows(x, y):
    pairs = zip(x, y, strict=True)
    return [{"id": str(i), "picture": png(a), "kind": int(b)} for i, (a, b) in enumerate(pairs)]


def png(pixels):
    """A file of them. (Arrays are encoded by tensorflow-datasets with TensorFlow.)"""
    file = io.BytesIO()
    others("PIL.Image").fromarray(pixels.squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def test_tfds_by_its_features_types(alone, tmp_path, tfds_set):
    (x, y), (tx, ty) = images(9), images(4, seed=1)
    tfds_set({"train": rows(x, y), "test": rows(tx, ty)}, name="pets/small")
    train, test = pair("tfds:pets/small", tmp_path / "tfds", download=False)
    for data, pixels, labels in ((train, x, y), (test, tx, ty)):
        np.testing.assert_array_equal(data.x, pixels)
        np.testing.assert_array_equal(data.y, labels)
        assert (data.x.dtype, data.y.dtype, data.num_classes) == (np.uint8, np.int32, 3)
    assert (train.name, train.class_names) == ("tfds:pets/small", ("cat", "dog", "fish"))
    np.testing.assert_allclose(train.prepare(x), x / np.float32(255), rtol=1e-6)


def test_tfds_own_cache_is_found(alone, tfds_set, monkeypatch):
    x, y = images(5)
    folder = tfds_set({"train": rows(x, y)})
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder.parents[1]))
    np.testing.assert_array_equal(load("tfds:pets", download=False).x, x)
    (alone / "tensorflow_datasets").symlink_to(folder.parents[1])
    monkeypatch.delenv("TFDS_DATA_DIR")
    np.testing.assert_array_equal(load("tfds:pets", download=False).x, x)


def test_a_split_that_a_set_lacks(alone, tmp_path, tfds_set):
    x, y = images(5)
    tfds_set({"validation": rows(x, y)})
    with pytest.raises(DataError, match=r"no split 'train'.*'validation'.*load\('tfds:pets', 'val"):
        load("tfds:pets", data_dir=tmp_path / "tfds")
    assert len(load("tfds:pets", "validation", tmp_path / "tfds")) == 5


def test_several_labels_have_to_be_told_apart(alone, tmp_path, tfds_set):
    tfds = others("tensorflow_datasets")
    kinds = {
        "picture": tfds.features.Image(shape=(6, 5, 3)),
        "kind": tfds.features.ClassLabel(num_classes=3),
        "colour": tfds.features.ClassLabel(num_classes=7),
    }
    x, y = images(5)
    examples = [{"picture": png(a), "kind": int(b), "colour": 6} for a, b in zip(x, y, strict=True)]
    tfds_set({"train": examples}, kinds)
    with pytest.raises(
        DataError,
        match=r"2 labels. Its features are .*'picture' \(image\).*Give label='\w+' or label='\w+'",
    ):
        load("tfds:pets", data_dir=tmp_path / "tfds")
    data = load("tfds:pets", data_dir=tmp_path / "tfds", label="colour")
    assert (data.y.tolist(), data.num_classes) == ([6] * 5, 7)
    with pytest.raises(DataError, match=r"label='size' is none of its labels"):
        load("tfds:pets", data_dir=tmp_path / "tfds", label="size")
    for example in examples:
        example["picture"].seek(0)
    tfds_set({"train": examples}, kinds, name="usual", supervised=("picture", "kind"))
    np.testing.assert_array_equal(load("tfds:usual", data_dir=tmp_path / "tfds").y, y)


def test_no_images(alone, tmp_path, tfds_set):
    tfds = others("tensorflow_datasets")
    kinds = {"sentence": tfds.features.Text(), "kind": tfds.features.ClassLabel(num_classes=2)}
    tfds_set({"train": [{"sentence": "a", "kind": 1}]}, kinds)
    with pytest.raises(DataError, match=r"0 images.*'sentence' \(Text\).*from_arrays"):
        load("tfds:pets", data_dir=tmp_path / "tfds")


@pytest.mark.parametrize("grey", [False, True])
def test_images_of_several_sizes(alone, tmp_path, tfds_set, grey):
    tfds, pil = others("tensorflow_datasets"), others("PIL.Image")
    channels = 1 if grey else 3
    pictures = [images(1, (h, w, channels), seed=h)[0][0] for h, w in ((8, 12), (10, 6), (8, 8))]
    kinds = {
        "id": tfds.features.Text(),
        "picture": tfds.features.Image(shape=(None, None, channels)),
        "kind": tfds.features.ClassLabel(num_classes=3),
    }
    tfds_set({"train": rows(pictures, [0, 1, 2])}, kinds)
    with pytest.raises(
        DataError,
        match=r"image 1 of 'train' is uint8\[10, 6, .\], uint8\[8, 12, .\] expected.*size=(.|\n)*ImageStream",
    ):
        load("tfds:pets", data_dir=tmp_path / "tfds")
    data = load("tfds:pets", data_dir=tmp_path / "tfds", size=4)
    assert data.x.shape == (3, 4, 4, channels)
    first = pil.fromarray(pictures[0].squeeze())
    expected = np.asarray(first.resize((6, 4), pil.Resampling.BILINEAR).crop((1, 0, 5, 4)))
    np.testing.assert_array_equal(data.x[0].squeeze(), expected)


def test_tfds_that_are_nowhere(alone, tmp_path):
    others("tensorflow_datasets")
    with pytest.raises(
        DataNotFoundError, match=r"Looked in(.|\n)*download=False(.|\n)*array_record"
    ):
        load("tfds:pets", data_dir=tmp_path, download=False)
    with pytest.raises(DataNotFoundError, match=r"no_such_set|not found"):
        load("tfds:no_such_set", data_dir=tmp_path)
    for name in ("", "../pets", "/pets", "pets/../../x"):
        with pytest.raises(DataError, match="a name is like"):
            load(f"tfds:{name}")


@pytest.fixture
def hf_set(tmp_path):
    """`hf_set(columns, **features)`: a Dataset of the library, images stored as PNG."""
    datasets = others("datasets")

    def make(x, y, **more):
        kinds = {
            "img": datasets.Image(),
            "fine": datasets.ClassLabel(names=["cat", "dog", "fish"]),
            "id": datasets.Value("int32"),
        } | {name: kind for name, (kind, _) in more.items()}
        columns = {
            "img": [{"bytes": png(a).read(), "path": None} for a in x],
            "fine": list(y),
            "id": list(range(len(y))),
        }
        columns |= {name: values for name, (_, values) in more.items()}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))

    return make


@pytest.fixture
def arrow(alone, tmp_path, monkeypatch):
    """The library's cache, an empty folder."""
    datasets = others("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    return tmp_path / "arrow"


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5, 1)])
@pytest.mark.parametrize("form", ["clone", "disk"])
def test_hf_by_its_features_types(arrow, tmp_path, hf_set, form, shape):
    datasets = others("datasets")
    (x, y), (tx, ty) = images(9, shape), images(4, shape, seed=1)
    folder = tmp_path / "hub" / "me" / "pets"
    if form == "disk":
        whole = datasets.DatasetDict(train=hf_set(x, y), test=hf_set(tx, ty))
        whole.save_to_disk(str(folder))
    else:
        (folder / "data").mkdir(parents=True)
        hf_set(x, y).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
        hf_set(tx, ty).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    for place in (tmp_path / "hub", tmp_path / "hub" / "me"):
        train, test = pair("hf:me/pets", place, download=False)
        for data, pixels, labels in ((train, x, y), (test, tx, ty)):
            np.testing.assert_array_equal(data.x, pixels)
            np.testing.assert_array_equal(data.y, labels)
        assert (train.name, train.class_names) == ("hf:me/pets", ("cat", "dog", "fish"))
    with pytest.raises(DataError, match=r"no split 'validation'; there are 'train', 'test'"):
        load("hf:me/pets", "validation", tmp_path / "hub")


def test_the_cache_of_the_hub_without_a_network(arrow, tmp_path, hf_set):
    datasets = others("datasets")
    x, y = images(5)
    folder = tmp_path / "elsewhere" / "pets"
    folder.mkdir(parents=True)
    hf_set(x, y).to_parquet(folder / "train-00000-of-00001.parquet")
    datasets.load_dataset(str(folder))  # fills the cache under the name "pets"
    np.testing.assert_array_equal(load("hf:pets", download=False).x, x)
    assert datasets.config.HF_HUB_OFFLINE is False
    with pytest.raises(DataNotFoundError, match=r"hf:birds is not to be had.*OfflineModeIsEnabled"):
        load("hf:birds", download=False)


def test_hf_that_are_unclear_or_damaged(arrow, tmp_path, hf_set):
    datasets = others("datasets")
    x, y = images(5)

    def stored(name, data):
        (tmp_path / name).mkdir()
        data.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
        return f"hf:{name}"

    coarse = (datasets.ClassLabel(num_classes=2), [0, 1, 0, 1, 1])
    two = stored("two", hf_set(x, y, coarse=coarse))
    with pytest.raises(DataError, match=r"2 labels.*Give label='fine' or label='coarse'"):
        load(two, data_dir=tmp_path)
    assert load(two, data_dir=tmp_path, label="coarse").y.tolist() == coarse[1]
    plain = stored("plain", hf_set(x, y).cast_column("fine", datasets.Value("int64")))
    with pytest.raises(DataError, match=r"0 labels.*'fine' \(int64\).*from_arrays"):
        load(plain, data_dir=tmp_path)
    hidden = stored("hidden", hf_set(x, [0, 1, -1, 2, 0]))
    with pytest.raises(DataError, match=r"label 2 of .train. is -1.*no label"):
        load(hidden, data_dir=tmp_path)
    several = stored("several", hf_set([*x[:3], x[3][:4], x[4]], y))
    with pytest.raises(
        DataError, match=r"image 3 of 'train' is uint8\[4, 5, 3\](.|\n)*ImageStream"
    ):
        load(several, data_dir=tmp_path)
    assert load(several, data_dir=tmp_path, size=4).x.shape == (5, 4, 4, 3)
    damaged = hf_set(x, y).cast_column("img", datasets.Image(decode=False)).to_list()
    damaged[1]["img"]["bytes"] = damaged[1]["img"]["bytes"][:60]
    kinds = hf_set(x, y).features
    broken = stored("broken", datasets.Dataset.from_list(damaged, features=kinds))
    with pytest.raises(DataError, match=r"image 1: (cut short|not recognised)"):
        load(broken, data_dir=tmp_path)
    for name in ("", "a/b/c", "../up", "a@", "/x"):
        with pytest.raises(DataError, match="a name is like"):
            load(f"hf:{name}")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_grey_images_among_coloured_ones(arrow, tmp_path, hf_set, order):
    grey, coloured = images(1, (6, 5, 1))[0][0], images(1)[0][0]
    pictures = [(grey, coloured)[i] for i in order]
    (tmp_path / "mixed").mkdir()
    hf_set(pictures, [0, 1]).to_parquet(tmp_path / "mixed" / "train-00000-of-00001.parquet")
    data = load("hf:mixed", data_dir=tmp_path)
    for found, given in zip(data.x, pictures, strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(given, (6, 5, 3)))


def test_options_of_the_open_lists_only():
    with pytest.raises(
        DataError, match="size, image and label are of tfds: and hf:, not of digits"
    ):
        load("digits", size=4)
    with pytest.raises(DataError, match="a whole number of at least 1"):
        load("tfds:mnist", size=0)
    with pytest.raises(DataError, match="tfds:NAME or hf:NAME"):
        load("mnist")
