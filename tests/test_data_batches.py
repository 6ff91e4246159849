"""Batches depend on seed and step only; the background thread ends, and its errors arrive."""

import gc
import json
import threading

import numpy as np
import pytest

from tinyseg.data import Batches, Prefetch, Sample, SyntheticCells, check_normalisation, default_augmentation, normalise


class Numbers:
    """Ten flat pictures of value i; their masks too."""

    num_classes = 1

    def __init__(self, n=10, size=4):
        self.n, self.size = n, size

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return Sample(
            np.full((1, self.size, self.size), i, np.float32), np.full((self.size, self.size), i, np.uint8), str(i)
        )


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tinyseg-prefetch"]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 25])
def test_every_item_comes_once_in_each_pass(batch_size):
    batches = Batches(Numbers(), batch_size, seed=2)
    sequence = [i for step in range(40) for i in batches.indices(step)]
    passes = [tuple(sequence[k : k + 10]) for k in range(0, len(sequence) - 9, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len(set(passes)) > 1
    assert batches.steps_per_epoch == {1: 10, 3: 4, 4: 3, 25: 1}[batch_size]


def test_a_batch_depends_on_seed_and_step_only():
    data = SyntheticCells(5, 64)
    augment = default_augmentation(32)
    forth = Batches(data, 3, seed=9, augment=augment, normalisation="standardise")
    expected = [forth[step] for step in range(7)]
    back = Batches(data, 3, seed=9, augment=augment, normalisation="standardise")
    for step in reversed(range(7)):
        for a, b in zip(back[step], expected[step], strict=True):
            np.testing.assert_array_equal(a, b)
    other = Batches(data, 3, seed=10, augment=augment, normalisation="standardise")
    assert not np.array_equal(other[0][0], expected[0][0])
    assert not np.array_equal(expected[0][0], expected[5][0])


def test_the_random_changes_do_not_depend_on_the_batch_size():
    data, augment = SyntheticCells(5, 48), default_augmentation(32)
    singles = np.concatenate([Batches(data, 1, 3, augment)[step][0] for step in range(6)])
    np.testing.assert_array_equal(Batches(data, 6, 3, augment)[0][0], singles)


def test_shapes_and_types():
    pictures, masks = Batches(Numbers(), 4)[0]
    assert pictures.dtype == np.float32 and pictures.shape == (4, 1, 4, 4)
    assert masks.dtype == np.float32 and masks.shape == (4, 1, 4, 4)
    np.testing.assert_array_equal(pictures, masks)
    masks = Batches(Numbers(), 4, num_classes=3)[0][1]
    assert masks.dtype == np.int64 and masks.shape == (4, 4, 4)


def test_statistics_are_of_the_whole_picture_not_of_the_crop():
    data = SyntheticCells(3, 64)
    crop = default_augmentation(16).transforms[0].__class__(16, probability=0.0)
    pictures, _ = Batches(data, 8, 0, crop, "standardise")[0]
    plain, _ = Batches(data, 8, 0, crop)[0]
    order = Batches(data, 8, 0).indices(0)
    for i, changed, cut in zip(order, pictures, plain, strict=True):
        whole = data[i].picture
        np.testing.assert_allclose(changed, (cut - whole.mean()) / whole.std(), atol=1e-4)


def test_what_does_not_fit_into_a_batch_is_named():
    class Uneven(Numbers):
        def __getitem__(self, i):
            self.size = 4 + i
            return super().__getitem__(i)

    with pytest.raises(
        ValueError, match=r"\d and \d give pictures of shapes \(1, \d+, \d+\) and .*; expected one shape"
    ):
        Batches(Uneven(), 4)[0]

    class Bare(Numbers):
        def __getitem__(self, i):
            return Sample(np.zeros((1, 4, 4), np.float32), name=f"bare{i}")

    with pytest.raises(ValueError, match=r"bare\d has no mask; expected pictures with masks"):
        Batches(Bare(), 4)[0]
    with pytest.raises(ValueError, match="the data set is empty"):
        Batches(Numbers(0), 4)
    with pytest.raises(ValueError, match="batch_size is 0"):
        Batches(Numbers(), 0)
    with pytest.raises(IndexError, match="step is -1; expected 0 or more"):
        Batches(Numbers(), 4)[-1]


# ---- in the background ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
def test_iterating_gives_the_same_batches_in_order(prefetch):
    batches = Batches(Numbers(), 3, seed=1)
    with batches.iterate(4, 11, prefetch) as iterator:
        found = [pictures for pictures, _ in iterator]
    assert len(found) == 7
    for step, pictures in enumerate(found, 4):
        np.testing.assert_array_equal(pictures, batches[step][0])
    assert not prefetch_threads()


def test_results_are_made_ahead_but_not_more_than_asked_for():
    made, enough = [], threading.Event()

    def make(number):
        made.append(number)
        if number == 3:
            enough.set()
        return number

    with Prefetch(make, prefetch=2) as iterator:
        assert next(iterator) == 0
        assert enough.wait(10)  # 1 and 2 wait in the queue, 3 in the thread's hand
        assert made == [0, 1, 2, 3]
    assert not prefetch_threads()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_comes_in_its_turn_and_ends_it(prefetch):
    def make(number):
        if number == 2:
            raise RuntimeError("cannot make 2")
        return number

    iterator = Prefetch(make, prefetch=prefetch)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(RuntimeError, match="cannot make 2"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)
    assert not prefetch_threads()


def test_an_endless_iterator_stops_when_closed_or_left_or_forgotten():
    iterator = Batches(Numbers(), 3).iterate()
    next(iterator)
    iterator.close()
    iterator.close()
    with pytest.raises(StopIteration):
        next(iterator)
    with pytest.raises(KeyError), Batches(Numbers(), 3).iterate() as iterator:
        raise KeyError
    assert not prefetch_threads()
    forgotten = Batches(Numbers(), 3).iterate()
    next(forgotten)
    (thread,) = prefetch_threads()
    del forgotten
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


# ---- normalisation -------------------------------------------------------------------------------------------------


def test_normalise_by_hand():
    picture = np.float32([[[1, 3]], [[5, 7]]])
    np.testing.assert_allclose(normalise(picture, "standardise"), (picture - 4) / np.sqrt(5), rtol=1e-6)
    fixed = {"kind": "fixed", "mean": [1, 5], "std": [2, 4]}
    np.testing.assert_array_equal(normalise(picture, fixed), [[[0, 1]], [[0, 0.5]]])
    assert normalise(picture, "none") is picture and normalise(picture, None) is picture
    assert normalise(picture, "standardise").dtype == normalise(picture, fixed).dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -7.3])
def test_a_picture_of_one_value_becomes_0(value):
    np.testing.assert_allclose(
        normalise(np.full((1, 33, 35), value, np.float32), "standardise"), 0, atol=abs(value) * 1e-6
    )


def test_a_normalisation_survives_json():
    for given in ("none", "standardise", {"kind": "fixed", "mean": np.float32([0.5]), "std": (0.25,)}):
        checked = check_normalisation(given)
        assert check_normalisation(json.loads(json.dumps(checked))) == checked
    assert check_normalisation(None) == {"kind": "none"}


@pytest.mark.parametrize(
    "given, words",
    [
        ("zscore", "normalisation is 'zscore'; expected"),
        ({"kind": "fixed"}, "expected"),
        ({"kind": "none", "mean": [0]}, "expected"),
        (3, "normalisation is 3"),
        ({"kind": "fixed", "mean": [0, 0], "std": [1]}, r"mean \[0\.0, 0\.0\] and std \[1\.0\]; expected one finite"),
        ({"kind": "fixed", "mean": [0], "std": [0]}, "std above 0"),
    ],
)
def test_what_is_no_normalisation_is_named(given, words):
    with pytest.raises(ValueError, match=words):
        check_normalisation(given)


def test_a_normalisation_for_other_channels_is_named():
    with pytest.raises(ValueError, match="normalisation is for 1 channels; the picture has 3"):
        normalise(np.zeros((3, 4, 4), np.float32), {"kind": "fixed", "mean": [0], "std": [1]})
