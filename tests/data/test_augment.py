"""Augmentation: each against a NumPy loop that finds the parameters from the picture, and "off"."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jdl.data import augment

IMAGES = np.random.default_rng(0).uniform(1, 2, (24, 6, 5, 2)).astype(np.float32)
LABELS = np.arange(24) % 4
BATCH = jnp.asarray(IMAGES), jnp.asarray(LABELS)


def key():
    return jax.random.key(3)


@functools.cache
def compiled(make):
    return jax.jit(lambda key, batch, *strengths: make(*strengths)(key, batch))


def run(make, *strengths, keys=None, batch=BATCH):
    """The augmentation with its strengths traced, as in a lane."""
    keys = key() if keys is None else keys
    x, y = compiled(make)(keys, batch, *strengths)
    return np.asarray(x), np.asarray(y)


def moved(image, down, right):
    """The window whose corner lies at (down, right) of the image, by explicit loops."""
    out = np.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if 0 <= i + down < image.shape[0] and 0 <= j + right < image.shape[1]:
                out[i, j] = image[i + down, j + right]
    return out


OFF = {
    "flip": (augment.flip, 0.0),
    "crop": (lambda p: augment.crop(None, p), 0),
    "shift": (augment.shift, 0, 0),
    "rotate": (augment.rotate, 0.0),
    "cutout": (augment.cutout, 0),
    "noise": (augment.noise, 0.0),
    "mixup": (lambda a: augment.mixup(a, 4), 0.0),
}


def test_off_is_the_identity():
    def all_of_them(key, batch, strengths):
        keys = jax.random.split(key, len(OFF))
        made = {name: make(*strengths[name]) for name, (make, *_) in OFF.items()}
        return {name: made[name](k, batch) for name, k in zip(OFF, keys, strict=True)}

    strengths = {name: tuple(off) for name, (_, *off) in OFF.items()}
    for name, (x, y) in jax.jit(all_of_them)(key(), BATCH, strengths).items():
        np.testing.assert_allclose(x, IMAGES, rtol=1e-6, err_msg=name)
        np.testing.assert_array_equal(y, np.eye(4)[LABELS] if name == "mixup" else LABELS)


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_flip(axis):
    make = functools.partial(augment.flip, axis=axis)
    x, _ = run(make, 0.3)
    mirrored = IMAGES[:, :, ::-1] if axis == "horizontal" else IMAGES[:, ::-1]
    same = np.all(x == IMAGES, (1, 2, 3))
    np.testing.assert_array_equal(x[~same], mirrored[~same])
    assert 2 <= (~same).sum() <= 14
    assert np.array_equal(run(make, 1.0)[0], mirrored)


@pytest.mark.parametrize(
    ("make", "reach"),
    [
        (lambda p: augment.crop(None, p), (2, 2)),
        (augment.shift, (2, 1)),
        (augment.shift, (0, 2)),
        (augment.shift, (2, 2)),
    ],
)
def test_shifts(make, reach):
    """Every place to both far ends, and no place in step with the other axis."""
    images, labels = (np.concatenate([a] * 4) for a in (IMAGES, LABELS))
    batch = jnp.asarray(images), jnp.asarray(labels)
    x, y = run(make, *reach[: 1 + (make is augment.shift)], batch=batch)
    places = set()
    for before, after in zip(images, x, strict=True):
        matches = [
            (down, right)
            for down in range(-reach[0], reach[0] + 1)
            for right in range(-reach[1], reach[1] + 1)
            if np.array_equal(moved(before, down, right), after)
        ]
        assert len(matches) == 1
        places.add(matches[0])
    every = {(i, j) for i in range(-reach[0], reach[0] + 1) for j in range(-reach[1], reach[1] + 1)}
    for axis in (0, 1):
        assert {place[axis] for place in places} == {place[axis] for place in every}
    assert len(places) > 0.8 * len(every) and np.array_equal(y, labels)


def test_crop_to_a_smaller_size():
    x, _ = run(lambda p: augment.crop((3, 4), p), 0)
    assert x.shape == (24, 3, 4, 2)
    places = set()
    for before, after in zip(IMAGES, x, strict=True):
        corner = [
            (i, j)
            for i in range(4)
            for j in range(2)
            if np.array_equal(before[i : i + 3, j : j + 4], after)
        ]
        places.update(corner)
        assert len(corner) == 1
    assert places == {(i, j) for i in range(4) for j in range(2)}


def test_rotate_is_that_of_scipy():
    x, _ = run(augment.rotate, 40.0)
    angles = np.linspace(-40, 40, 801)
    found = []
    for before, after in zip(IMAGES[:6], x[:6], strict=True):
        turned = [
            ndimage.rotate(np.pad(before, ((3, 3), (3, 3), (0, 0))), a, reshape=False, order=1)
            for a in angles
        ]
        errors = [np.abs(t[3:-3, 3:-3] - after).max() for t in turned]
        assert min(errors) < 0.01
        found.append(angles[int(np.argmin(errors))])
    assert min(found) < -10 and max(found) > 10 and max(np.abs(found)) <= 40


def test_a_quarter_turn(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, minval: jnp.ones(shape))
    square = jnp.asarray(IMAGES[:, :5])
    turned, _ = run(augment.rotate, 90.0, batch=(square, BATCH[1]))
    np.testing.assert_allclose(turned, np.rot90(IMAGES[:, :5], -1, (1, 2)), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout(size):
    x, _ = run(augment.cutout, size)
    centres = set()
    for before, after in zip(IMAGES, x, strict=True):
        hole = np.all(after == 0, -1)
        np.testing.assert_array_equal(after[~hole], before[~hole])
        expected = []
        for row in range(6):
            for column in range(5):
                mask = np.zeros((6, 5), bool)
                low = size // 2
                mask[
                    max(0, row - low) : row - low + size, max(0, column - low) : column - low + size
                ] = True
                if np.array_equal(mask, hole):
                    expected.append((row, column))
        assert expected
        # A hole that is cut at the edge may have had one of several centres: the nearest one.
        centres.add(min(expected, key=lambda c: abs(c[0] - 2.5) + abs(c[1] - 2)))
    assert len(centres) > 8
    for axis, count in enumerate((6, 5)):  # both ends, too, and not the same one of both axes
        assert {centre[axis] for centre in centres} == set(range(count))


def test_noise():
    wide = jnp.zeros((50, 400)), jnp.zeros(50)
    x, _ = run(augment.noise, 0.7, batch=wide)
    assert abs(x.mean()) < 4 * 0.7 / np.sqrt(x.size)
    assert abs(x.std() - 0.7) < 4 * 0.7 / np.sqrt(2 * x.size)
    half = jnp.zeros((4, 3), jnp.bfloat16), jnp.zeros(4)
    assert run(augment.noise, 0.1, batch=half)[0].dtype == jnp.bfloat16


def test_mixup():
    x, y = run(lambda a: augment.mixup(a, 4), 0.6)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    shares = []
    for i in range(24):
        # x_i = t a + (1 - t) b for one partner b and the t that all share.
        fits = []
        for j in range(24):
            gap = (IMAGES[i] - IMAGES[j]).ravel()
            t = gap @ (x[i] - IMAGES[j]).ravel() / (gap @ gap) if i != j else 1.0
            mixed = t * IMAGES[i] + (1 - t) * IMAGES[j]
            fits.append((np.abs(mixed - x[i]).max(), j, t))
        error, j, t = min(fits)
        assert error < 1e-5
        if i != j:
            shares.append(t)
            np.testing.assert_allclose(
                y[i], t * np.eye(4)[LABELS[i]] + (1 - t) * np.eye(4)[LABELS[j]], atol=1e-5
            )
    assert len(shares) > 15 and min(shares) >= 0 and max(shares) <= 1
    np.testing.assert_allclose(shares, shares[0], atol=1e-4)


def test_the_share_of_mixup_is_even_on_average():
    """Beta(0.4, 0.4) has a mean of 0.5 and a deviation of 0.37."""

    def one(key):
        batch = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])
        return augment.mixup(0.4)(key, batch)[0][1, 0]

    shares = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key(), 600)))
    mixed = shares[shares < 1]  # where the partner is the other one
    assert len(mixed) > 200 and abs(mixed.mean() - 0.5) < 4 * 0.373 / np.sqrt(len(mixed))
    assert abs(mixed.std() - 0.373) < 0.05


@pytest.mark.slow
def test_the_share_of_mixup_is_beta_distributed():
    batch = jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])
    keys = jax.random.split(key(), 4000)
    x, _ = run(
        lambda a: lambda keys, batch: jax.vmap(lambda k: augment.mixup(a)(k, batch))(keys),
        0.4,
        keys=keys,
        batch=batch,
    )
    mixed = x[x[:, 0, 0] + x[:, 1, 0] > 0, 1, 0]
    mixed = mixed[(mixed > 0) & (mixed < 1)]
    # Half of the batches pair each example with itself and show 1; the rest show t itself.
    assert 1800 < len(mixed) < 2200
    from scipy import stats

    assert stats.kstest(mixed, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_chain_gives_each_its_own_key_and_lanes_differ():
    zeros = jnp.zeros((9, 9)), jnp.zeros(9)

    def lane(scale):
        return augment.chain(augment.noise(scale), augment.noise(2 * scale))(key(), zeros)[0]

    lanes = jax.jit(jax.vmap(lane))(jnp.arange(3.0))
    np.testing.assert_allclose(2 * lanes[1], lanes[2], rtol=1e-5)
    # With one key for both the sum would be 3 times one draw, its deviation 3 and not sqrt(5).
    assert abs(lanes[1].std() - 5**0.5) < 4 * 5**0.5 / np.sqrt(2 * 81)
    assert not np.any(lanes[0])


@pytest.mark.slow
def test_every_augmentation_in_lanes_of_different_strengths():
    def lane(key, p, pixels, degrees, alpha):
        made = augment.chain(
            augment.flip(p),
            augment.crop(None, pixels),
            augment.shift(pixels, pixels),
            augment.rotate(degrees),
            augment.cutout(pixels),
            augment.noise(p),
            augment.mixup(alpha, 4),
        )
        return made(key, BATCH)[0]

    keys = jnp.stack([key(), key()])
    lanes = jax.jit(jax.vmap(lane))(keys, *jnp.array([[0, 0.5], [0, 2], [0, 30], [0, 0.4]]))
    np.testing.assert_allclose(lanes[0], IMAGES, rtol=1e-6)
    assert np.abs(lanes[1] - IMAGES).mean() > 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.flip(1.5), r"`probability` must be in \[0, 1\], got probability=1.5"),
        (lambda: augment.flip(0.5, axis="x"), "`axis` must be 'horizontal' or 'vertical', got"),
        (lambda: augment.crop(None, -1), r"`padding` must be in \[0, inf\), got padding=-1"),
        (lambda: augment.shift(-1, 0), "`vertical` must"),
        (lambda: augment.shift(0, -1), "`horizontal` must"),
        (lambda: augment.rotate(-3.0), "`degrees` must"),
        (lambda: augment.cutout(-3.0), "`size` must"),
        (lambda: augment.noise(-0.1), "`deviation` must"),
        (lambda: augment.mixup(-0.1), "`alpha` must"),
        (lambda: augment.mixup(0.1)(key(), BATCH), "`classes` must be given"),
        (lambda: augment.crop(9)(key(), BATCH), r"at most the image's \(6, 5\), got size=\(9, 9\)"),
        (lambda: augment.flip()(key(), (BATCH[1], 0)), r"got shape \(24,\)"),
        (
            lambda: augment.noise()(key(), (BATCH[1], 0)),
            "`noise` needs floating-point x, got i",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bytes_may_be_moved_and_cut():
    whole = jnp.asarray(IMAGES * 100).astype(jnp.uint8), BATCH[1]
    x, _ = run(
        lambda p: augment.chain(augment.flip(), augment.shift(p), augment.cutout(p)), 2, batch=whole
    )
    assert x.dtype == np.uint8 and set(np.unique(x)) <= {0, *np.unique(whole[0]).tolist()}
