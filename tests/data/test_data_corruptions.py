"""Corruptions made here: each against somebody else's code or a case worked by hand, and all of them against what is promised."""

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from jaxtickets.data import (
    CORRUPTIONS,
    CorruptedSet,
    DataError,
    Standardise,
    corrupted,
    corruptions,
    digits,
    noisy,
)
from jaxtickets.data.corruptions import FUNCTIONS, blur, corrupt, digital, drawing, noise, weather
from jaxtickets.dataset import Dataset

ALL = pytest.mark.parametrize("name", FUNCTIONS)
# Statistics of N values are compared within five of their standard errors: by chance beyond it once in 1.7 million draws, and seeds are fixed.
ERRORS = 5


def pictures(count=12, height=32, width=32, channels=3):
    """Smooth coloured shapes that use all of 0 to 255, with some noise."""
    rng = np.random.default_rng(5)
    fields = ndimage.gaussian_filter(
        rng.standard_normal((count, height, width, channels)), (0, 3, 3, 0), mode="wrap"
    )
    fields = (
        127
        + 110 * fields / np.abs(fields).max((1, 2, 3), keepdims=True)
        + 6 * rng.standard_normal(fields.shape)
    )
    return np.clip(fields, 0, 255).astype(np.uint8)


X = pictures()


def unit(images=X):
    return images.astype(np.float32) / np.float32(255)


def draws(name, severity, count, seed=0):
    return [
        np.random.default_rng((seed, CORRUPTIONS.index(name), severity, i)) for i in range(count)
    ]


@ALL
@pytest.mark.parametrize(
    "images", [X[:3], pictures(3, 32, 32, 1), pictures(3, 20, 27)], ids=["colour", "grey", "oblong"]
)
def test_type_shape_and_dependence(name, images, monkeypatch):
    """Image i depends on itself, i, severity and seed: not on how many others there are, nor on how many go at once."""
    if name == "saturate" and images.shape[-1] == 1:
        pytest.skip("of no grey image")
    before = images.copy()
    whole = corrupt(images, name, 3, 7, 255)
    assert (whole.dtype, whole.shape) == (np.uint8, images.shape)
    np.testing.assert_array_equal(images, before)
    assert (whole != images).any((1, 2, 3)).all() or name == "spatter"
    np.testing.assert_array_equal(corrupt(images[:1], name, 3, 7, 255), whole[:1])
    monkeypatch.setattr(corruptions, "_AT_ONCE", 2)
    np.testing.assert_array_equal(corrupt(images, name, 3, 7, 255), whole)
    others = [corrupt(images, name, 3, 8, 255), corrupt(images[::-1].copy(), name, 3, 7, 255)[::-1]]
    drawn = name not in (
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "pixelate",
        "jpeg_compression",
        "gaussian_blur",
        "saturate",
    )
    assert [bool((other != whole).any()) for other in others] == [drawn, drawn]


# Not always further from the clean image at the next severity: glass, elastic and spatter change in kind (how rough, how far and how smooth,
# water or mud), motion from 3 to 4 is only longer, and saturate is grey at 1 and 2 and gaudy from 3 on.
FALLS = {
    "glass_blur": (1, 2, 4),
    "motion_blur": (3,),
    "elastic_transform": (1, 2, 3, 4),
    "spatter": (3,),
    "saturate": (2,),
}


@ALL
def test_it_grows_with_severity(name):
    images = pictures(60)
    distance = [
        np.abs(corrupt(images, name, severity, 0, 255) - images.astype(float)).mean()
        for severity in range(1, 6)
    ]
    assert tuple(
        severity for severity in range(1, 5) if distance[severity] <= distance[severity - 1]
    ) == FALLS.get(name, ())
    assert distance[0] > 0.1


def test_noise_has_the_stated_size():
    """On grey images, where nothing is clipped: deviations, photons and shares."""
    grey = np.full((40, 32, 32, 3), 0.5, np.float32)
    relative = 1 / np.sqrt(2 * grey.size)  # of a standard deviation
    for severity in (1, 5):
        i = severity - 1
        for name, expected in (
            ("gaussian_noise", noise.GAUSSIAN[i]),
            ("speckle_noise", 0.5 * noise.SPECKLE[i]),
            ("shot_noise", np.sqrt(0.5 / noise.SHOT[i])),
        ):
            found = FUNCTIONS[name](grey, severity, draws(name, severity, 40))
            assert abs(found.std() / expected - 1) < ERRORS * relative
            assert abs(found.mean() - 0.5) < ERRORS * expected / np.sqrt(grey.size)
        photons = (
            noise.shot_noise(grey, severity, draws("shot_noise", severity, 40)) * noise.SHOT[i]
        )
        np.testing.assert_allclose(photons, np.rint(photons), atol=1e-3)  # float32 of up to 500
        found, share = (
            noise.impulse_noise(grey, severity, draws("impulse_noise", severity, 40)),
            noise.IMPULSE[i] / 2,
        )
        assert set(np.unique(found)) == {0, 0.5, 1}
        for value in (0, 1):
            assert abs((found == value).mean() - share) < ERRORS * np.sqrt(share / grey.size)
    np.testing.assert_array_equal(
        noise.speckle_noise(0 * grey, 5, draws("speckle_noise", 5, 40)), 0
    )


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_blur_is_scipys(severity):
    found = blur.gaussian_blur(unit(), severity, [])
    expected = ndimage.gaussian_filter(
        unit()[4, ..., 1].astype(np.float64), blur.GAUSSIAN[severity - 1], mode="nearest"
    )
    np.testing.assert_allclose(found[4, ..., 1], expected, atol=1e-6)  # float32


def test_defocus_blur_by_hand():
    """Radius 1.5 holds 3x3 pixels and its rim is hard; radius 0.3 holds one, of which a rim of three weights remains."""
    x = unit()[0, ..., 0].astype(np.float64)
    np.testing.assert_allclose(
        blur.defocus_blur(unit(), 5, [])[0, ..., 0],
        ndimage.uniform_filter(x, 3, mode="mirror"),
        atol=1e-6,
    )
    side = np.exp(-1 / (2 * 0.4**2))
    weights = np.array([side, 1, side]) / (1 + 2 * side)
    expected = ndimage.correlate1d(
        ndimage.correlate1d(x, weights, 0, mode="mirror"), weights, 1, mode="mirror"
    )
    np.testing.assert_allclose(blur.defocus_blur(unit(), 1, [])[0, ..., 0], expected, atol=1e-6)


def test_glass_blur_one_pixel_after_another():
    """From the last pixel to the first, each takes what its neighbour has by then: all at once is the same."""
    found = blur.glass_blur(
        unit(), 1, draws("glass_blur", 1, len(X))
    )  # its Gaussian of 0.05 reaches no neighbour
    back = draws("glass_blur", 1, 4)[3].integers(0, 2, (2, 32, 32))
    image = unit()[3].copy()
    for row in range(31, 1, -1):
        for column in range(31, 1, -1):
            image[row, column] = image[row - back[0, row, column], column - back[1, row, column]]
    np.testing.assert_array_equal(found[3], image)


def test_streaks_by_hand():
    """One bright pixel becomes half a Gaussian to the left (0 degrees), upwards (90), and to both (45)."""
    x = np.zeros((3, 9, 9, 1), np.float32)
    x[:, 6, 6] = 1
    found = drawing.streak(x, 2, 1.0, np.array([0, 90, 45]))[..., 0]
    weights = np.exp(-(np.arange(5) ** 2) / 2)
    weights /= weights.sum()
    expected = np.zeros((3, 9, 9))
    for step in range(5):
        expected[0, 6, 6 - step] = expected[1, 6 - step, 6] = weights[step]
        expected[2, 6 - round(step * np.sqrt(0.5)), 6 - round(step * np.sqrt(0.5))] += weights[step]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    flat = np.full((2, 16, 16, 3), 0.25, np.float32)
    np.testing.assert_allclose(
        blur.motion_blur(flat, 5, draws("motion_blur", 5, 2)), flat, atol=1e-6
    )


@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_blur_image_by_image(severity):
    image, end = unit()[2].astype(np.float64), (1.06, 1.26)[severity > 1]
    total, factors = image.copy(), np.arange(1, end, 0.01)
    for factor in factors:
        kept = int(np.ceil(32 / factor))
        first = (32 - kept) // 2
        large = ndimage.zoom(
            image[first : first + kept, first : first + kept], (factor, factor, 1), order=1
        )
        over = (len(large) - 32) // 2
        total += large[over : over + 32, over : over + 32]
    np.testing.assert_allclose(
        blur.zoom_blur(unit(), severity, [])[2], total / (len(factors) + 1), atol=1e-5
    )  # a sum of 27 in float32


def test_plasma_by_hand():
    """Two by two: the corner 0, the centre its chance, the sides half of the centre (twice among four neighbours) and their own."""
    chance = np.array([[[0.9, 0.1], [0.2, 0.4]], [[0, 0], [0, 0]]])
    np.testing.assert_allclose(
        weather.plasma(chance, 2.0)[0], np.array([[0, 0.3], [0.4, 0.4]]) / 0.4, atol=1e-6
    )
    np.testing.assert_array_equal(weather.plasma(chance, 2.0)[1], 0)
    rough, smooth = (
        weather.plasma(np.random.default_rng(0).uniform(-1, 1, (20, 32, 32)), decay)
        for decay in (1.5, 3.0)
    )
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(smooth)).mean()


def test_fog_keeps_the_brightest_value():
    x = unit()
    found = weather.fog(x, 5, draws("fog", 5, len(x)))
    assert (found >= 0).all()
    assert (found.max((1, 2, 3)) <= x.max((1, 2, 3)) + 1e-6).all()
    clouds = found * (x.max((1, 2, 3), keepdims=True) + 1.5) / x.max((1, 2, 3), keepdims=True) - x
    np.testing.assert_allclose(
        clouds / 1.5, np.broadcast_to(clouds[..., :1] / 1.5, x.shape), atol=1e-5
    )  # the same for all colours
    np.testing.assert_allclose(
        (clouds.min((1, 2, 3)), clouds.max((1, 2, 3))), ([0] * len(x), [1.5] * len(x)), atol=1e-5
    )


@pytest.mark.parametrize("severity", range(1, 6))
def test_snow_only_brightens_and_falls_steeply(severity):
    x = unit()
    found = weather.snow(x, severity, draws("snow", severity, len(x)))
    assert (found >= x - 1e-6).all()
    flakes = weather.snow(np.zeros_like(x), severity, draws("snow", severity, len(x)))[
        ..., 0
    ] - 0.5 * (1 - weather.SNOW[severity - 1][-1])
    np.testing.assert_allclose(flakes, flakes[:, ::-1, ::-1], atol=1e-6)
    along, across = (np.abs(np.diff(flakes, axis=axis)).mean() for axis in (1, 2))
    assert along < across


def test_spatter():
    """Water brightens, mud browns, and elsewhere an image is as it was; a dry image too."""
    x = np.clip(unit(), 0.3, 0.8)
    for severity in range(1, 6):
        found = weather.spatter(x, severity, draws("spatter", severity, len(x)))
        changed = (np.abs(found - x) > 1e-6).any(-1)
        assert 0 < changed.mean() < 0.6
        if severity <= 3:
            assert (found >= x - 1e-6).all()
        else:
            mud = np.array(weather.MUD, np.float32) / 255
            covered = (x - found)[changed] / (x - mud)[changed]
            np.testing.assert_allclose(
                covered.min(-1), covered.max(-1), atol=1e-4
            )  # a quotient of float32 differences
            assert covered.min() > 0.8 - 1e-4
            assert covered.max() < 1 + 1e-4
    np.testing.assert_array_equal(weather._shine(np.zeros((2, 16, 16), np.float32)), 0)
    np.testing.assert_array_equal(
        weather._equalised(np.array([[2, 2], [3, 5]], np.uint8)), [[0, 0], [128, 255]]
    )


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_and_saturation_by_matplotlib(severity):
    x = np.concatenate(
        [X, np.zeros_like(X[:1]), np.full_like(X[:1], 90)]
    )  # with black and with grey
    hsv = rgb_to_hsv(unit(x).astype(np.float64))
    brighter, saturated = hsv.copy(), hsv.copy()
    brighter[..., 2] = np.clip(hsv[..., 2] + weather.BRIGHTNESS[severity - 1], 0, 1)
    factor, more = digital.SATURATE[severity - 1]
    saturated[..., 1] = np.clip(hsv[..., 1] * factor + more, 0, 1)
    np.testing.assert_allclose(
        weather.brightness(unit(x), severity, []), hsv_to_rgb(brighter), atol=1e-5
    )
    np.testing.assert_allclose(
        digital.saturate(unit(x), severity, []), hsv_to_rgb(saturated), atol=1e-5
    )


def test_contrast_by_hand():
    x = np.array([[[[0.0, 1], [1, 1]], [[0.5, 0], [0.5, 0]]]], np.float32)  # means 0.5 and 0.5
    np.testing.assert_allclose(
        digital.contrast(x, 2, []),
        [[[[0.25, 0.75], [0.75, 0.75]], [[0.5, 0.25], [0.5, 0.25]]]],
        atol=1e-6,
    )


def test_elastic_transform_by_scipys_affine():
    """Severity 1 has no displacements: three points go where they were drawn to."""
    rng = draws("elastic_transform", 1, 3)[2]
    corners = np.array([[26, 26], [6, 26], [6, 6]], np.float64)
    moved = corners + rng.uniform(-2.56, 2.56, (3, 2))
    linear = ((corners[1:] - corners[0]).T) @ np.linalg.inv((moved[1:] - moved[0]).T)
    found = digital.elastic_transform(unit(), 1, draws("elastic_transform", 1, len(X)))
    offset = corners[0] - linear @ moved[0]
    expected = ndimage.affine_transform(
        unit()[2, ..., 1].astype(np.float64), linear, offset, order=1, mode="mirror"
    )
    np.testing.assert_allclose(found[2, ..., 1], expected, atol=1e-5)
    flat = np.full((2, 32, 32, 3), 0.5, np.float32)
    np.testing.assert_allclose(
        digital.elastic_transform(flat, 5, draws("elastic_transform", 5, 2)), flat, atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_by_pillow(channels):
    images = pictures(3, 24, 40, channels)
    picture = Image.fromarray(images[1][..., 0] if channels == 1 else images[1])
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    np.testing.assert_array_equal(
        corrupt(images, "jpeg_compression", 4, 0, 255)[1].squeeze(), np.asarray(Image.open(file))
    )
    small = picture.resize((26, 15), Image.Resampling.BOX).resize((40, 24), Image.Resampling.BOX)
    np.testing.assert_array_equal(
        corrupt(images, "pixelate", 5, 0, 255)[1].squeeze(), np.asarray(small)
    )


def test_sets():
    test = digits("test").take(slice(0, 20))
    sets = corrupted(test, severities=(2, 4), seed=3)
    assert len(sets) == len(list(sets)) == 2 * 17  # neither frost nor saturate
    fog = next(found for found in sets if found.corruption == "fog")
    assert isinstance(fog, CorruptedSet)
    assert isinstance(fog, Dataset)
    assert (fog.name, fog.severity, fog.generated, fog.num_classes) == (
        "digits-c/fog/2 (generated)",
        2,
        True,
        10,
    )
    assert fog.prepare is test.prepare
    assert fog.y is test.y
    assert fog.x.max() <= 16
    lone = corrupted(test, "fog", 2, seed=3)[0]
    assert lone.fingerprint() == fog.fingerprint() == fog.take(slice(None)).fingerprint()
    assert lone.fingerprint() != corrupted(test, "fog", 2, seed=4)[0].fingerprint()
    assert lone.take(slice(0, 5)).corruption == "fog"
    colour = Dataset(
        X, np.zeros(len(X), np.int32), 10, name="shapes", prepare=Standardise((0.5,), (0.25,))
    )
    assert len(corrupted(colour, seed=0)) == 90
    assert corrupted(colour, seed=0)[89].name == "shapes-c/saturate/5 (generated)"


def test_what_cannot_be():
    test = digits("test")
    bare = dataclasses.replace(test, prepare=lambda x: x)
    for give, message in (
        (lambda: corrupted(test, "fogg", seed=0), r"some of gaussian_noise, .*; got 'fogg'"),
        (lambda: corrupted(test, (), seed=0), r"got \(\)"),
        (
            lambda: corrupted(test, ("fog", "frost"), seed=0),
            "'frost' cannot be made: it overlays photographs",
        ),
        (lambda: corrupted(test, "saturate", seed=0), "grey images have no colours"),
        (
            lambda: corrupted(test, "fog", (0, 1), seed=0),
            r"severities are some of 1, 2, 3, 4, 5; got \(0, 1\)",
        ),
        (lambda: corrupted(test, "fog", True, seed=0), "got True"),
        (lambda: corrupted(test, seed=-1), "seed is an integer >= 0; got -1"),
        (lambda: corrupted(test, seed=0.5), "got 0.5"),
        (lambda: corrupted(bare, seed=0), "Give it: scale=255"),
        (lambda: corrupted(bare, seed=0, scale=8), "got 8, and pixels of 16"),
        (
            lambda: corrupted(dataclasses.replace(test, x=test.x / 16), seed=0),
            r"uint8 \[N, H, W, C\] .* got float64\[450, 8, 8, 1\]",
        ),
        (lambda: corrupted(dataclasses.replace(test, x={"a": test.x}), seed=0), "got dict"),
        (
            lambda: corrupted(dataclasses.replace(test, x=test.x[:, :4]), seed=0),
            r"at least 8 pixels .* got \[4, 8\]",
        ),
        (lambda: noisy(test, 0, seed=0), "standard_deviation is positive"),
        (lambda: noisy(test, 0.1, seed="a"), "got 'a'"),
        (lambda: noisy(bare, 0.1, seed=0), "noisy: digits: its prepare"),
    ):
        with pytest.raises(DataError, match=message):
            give()


def test_noisy():
    grey = Dataset(
        np.full((40, 32, 32, 3), 128, np.uint8),
        np.zeros(40, np.int32),
        10,
        name="grey",
        prepare=Standardise((0.5,), (0.25,)),
    )
    found = noisy(grey, 0.05, seed=1)
    assert (
        abs(found.x.std() / (255 * 0.05) - 1) < ERRORS / np.sqrt(2 * found.x.size) + 1e-3
    )  # rounding adds 1/12 to 163
    assert (found.x.dtype, found.x.shape, found.name) == (
        np.uint8,
        grey.x.shape,
        "grey with Gaussian noise 0.05 (generated)",
    )
    np.testing.assert_array_equal(noisy(grey.take(slice(0, 3)), 0.05, seed=1).x, found.x[:3])
    assert (noisy(grey, 0.05, seed=2).x != found.x).any()
    strong = noisy(digits("test"), 4.0, seed=0).x
    assert (strong.min(), strong.max()) == (0, 16)
