"""Answers worked out by hand, small enough to follow with a pencil."""

import numpy as np
import pytest

from kernels import naive

F = np.float32


def picture(*rows):
    """Return one picture of one channel."""
    return np.array(rows, F)[None, None]


RAMP = np.arange(9, dtype=F).reshape(1, 1, 3, 3)  # 0 1 2 / 3 4 5 / 6 7 8


# ---- convolution ----------------------------------------------------------------------------------------------------


def test_conv2d_sums_under_a_kernel_of_ones():
    y = naive.conv2d_forward(RAMP, np.ones((1, 1, 2, 2), F), np.array([10], F))
    np.testing.assert_array_equal(y, picture([0 + 1 + 3 + 4 + 10, 1 + 2 + 4 + 5 + 10], [3 + 4 + 6 + 7 + 10, 34]))


def test_conv2d_does_not_flip_its_kernel():
    # right neighbour minus left neighbour: 2 on a ramp of step 1
    y = naive.conv2d_forward(RAMP, np.array([-1, 0, 1], F).reshape(1, 1, 1, 3))
    np.testing.assert_array_equal(y, picture([2], [2], [2]))


def test_conv2d_pads_with_zeros():
    y = naive.conv2d_forward(RAMP, np.array([-1, 0, 1], F).reshape(1, 1, 1, 3), padding=(0, 1))
    np.testing.assert_array_equal(y, picture([1, 2, -1], [4, 2, -4], [7, 2, -7]))


def test_conv2d_stride_and_dilation():
    corners = naive.conv2d_forward(RAMP, np.ones((1, 1, 2, 2), F), dilation=2)
    np.testing.assert_array_equal(corners, picture([0 + 2 + 6 + 8]))
    every_other = naive.conv2d_forward(RAMP, np.ones((1, 1, 1, 1), F), stride=2)
    np.testing.assert_array_equal(every_other, picture([0, 2], [6, 8]))


def test_conv2d_groups_do_not_see_each_other():
    x = np.array([1, 10, 100, 1000], F).reshape(1, 4, 1, 1)
    weight = np.array([[1, 2], [3, 4]], F).reshape(2, 2, 1, 1)
    y = naive.conv2d_forward(x, weight, groups=2)
    np.testing.assert_array_equal(y.ravel(), [1 * 1 + 2 * 10, 3 * 100 + 4 * 1000])


def test_conv2d_gradients():
    weight = np.array([[[[1, 2], [3, 4]]]], F)
    dy = picture([1, 0], [0, 10])
    dx, dweight, dbias = naive.conv2d_backward(dy, RAMP, weight)
    # each output spreads the kernel, times its gradient, over the pixels it read
    np.testing.assert_array_equal(dx, picture([1, 2, 0], [3, 4 + 10, 20], [0, 30, 40]))
    # each weight: the pixel under it at the first output, plus ten times that at the last
    np.testing.assert_array_equal(dweight, picture([0 + 40, 1 + 50], [3 + 70, 4 + 80]))
    np.testing.assert_array_equal(dbias, [11])


def test_conv_transpose2d_stamps_its_kernel():
    weight = np.array([[[[1, 2], [3, 4]]]], F)
    x = picture([1, 10])
    apart = naive.conv_transpose2d_forward(x, weight, np.array([5], F), stride=2)
    np.testing.assert_array_equal(apart, picture([6, 7, 15, 25], [8, 9, 35, 45]))
    overlapping = naive.conv_transpose2d_forward(x, weight)
    np.testing.assert_array_equal(overlapping, picture([1, 2 + 10, 20], [3, 4 + 30, 40]))
    cropped = naive.conv_transpose2d_forward(x, weight, stride=2, padding=(0, 1))
    np.testing.assert_array_equal(cropped, picture([2, 10], [4, 30]))
    gap_filled = naive.conv_transpose2d_forward(x, weight, stride=3, output_padding=(0, 1))
    np.testing.assert_array_equal(gap_filled, picture([1, 2, 0, 10, 20, 0], [3, 4, 0, 30, 40, 0]))


def test_conv_transpose2d_gradients():
    weight = np.array([[[[1, 2], [3, 4]]]], F)
    x = picture([1, 10])
    dy = picture([1, 0, 0, 0], [0, 0, 0, 100])
    dx, dweight, dbias = naive.conv_transpose2d_backward(dy, x, weight, stride=2)
    np.testing.assert_array_equal(dx, picture([1 * 1, 4 * 100]))
    np.testing.assert_array_equal(dweight, picture([1 * 1, 0], [0, 10 * 100]))
    np.testing.assert_array_equal(dbias, [101])


# ---- normalisation, pooling, resizing -------------------------------------------------------------------------------


def test_batch_norm_training():
    x = np.array([1, 3], F).reshape(2, 1, 1, 1)  # mean 2, biased variance 1, unbiased 2
    running_mean, running_var = np.array([10], F), np.array([10], F)
    y, mean, inv_std = naive.batch_norm_forward(
        x, np.array([5], F), np.array([100], F), running_mean, running_var, True, momentum=0.5, eps=3.0
    )
    assert (mean[0], inv_std[0]) == (2, 0.5)  # 1 / sqrt(1 + 3)
    np.testing.assert_array_equal(y.ravel(), [100 - 2.5, 100 + 2.5])
    assert (running_mean[0], running_var[0]) == (6, 6)


def test_batch_norm_evaluation_uses_running_statistics():
    x = np.array([1, 3], F).reshape(1, 1, 1, 2)
    y, mean, inv_std = naive.batch_norm_forward(x, None, None, np.array([1], F), np.array([4], F), False, eps=0.0)
    np.testing.assert_array_equal(y.ravel(), [0, 1])
    assert (mean[0], inv_std[0]) == (1, 0.5)
    dy = np.array([1, 5], F).reshape(x.shape)
    dx, dgamma, dbeta = naive.batch_norm_backward(dy, x, np.array([3], F), mean, inv_std, False)
    np.testing.assert_array_equal(dx.ravel(), [1.5, 7.5])
    assert (dgamma[0], dbeta[0]) == (0 * 1 + 1 * 5, 6)


def test_batch_norm_gradient_of_training_ignores_shift_and_scale():
    # adding to, or stretching, all of x changes no output: such changes of the loss leave no gradient
    x = np.array([-1, 0, 1], F).reshape(1, 1, 1, 3)
    _, mean, inv_std = naive.batch_norm_forward(x, None, None, None, None, True, eps=0.0)
    dx, _, dbeta = naive.batch_norm_backward(np.ones_like(x), x, None, mean, inv_std, True)
    np.testing.assert_allclose(dx, 0, atol=1e-7)
    assert dbeta[0] == 3
    dx, dgamma, _ = naive.batch_norm_backward(x, x, None, mean, inv_std, True)
    np.testing.assert_allclose(dx, 0, atol=1e-7)
    np.testing.assert_allclose(dgamma, np.sqrt(6), rtol=1e-6)  # (1 + 1) / sqrt(2 / 3)


def test_batch_norm_of_large_numbers_keeps_their_variance():
    x = (10_000 + np.array([-1, 1] * 50)).astype(F).reshape(1, 1, 10, 10)
    y, _, _ = naive.batch_norm_forward(x, None, None, None, None, True, eps=0.0)
    np.testing.assert_array_equal(np.abs(y), 1)


def test_max_pool2d_takes_the_first_of_equals():
    x = picture([1, 2, 5, 5], [3, 3, 5, 5])
    y, indices = naive.max_pool2d_forward(x, 2)
    np.testing.assert_array_equal(y, picture([3, 5]))
    np.testing.assert_array_equal(indices.ravel(), [4, 2])
    dx = naive.max_pool2d_backward(picture([10, 20]), indices, x.shape)
    np.testing.assert_array_equal(dx, picture([0, 0, 20, 0], [10, 0, 0, 0]))


def test_max_pool2d_nan_wins_and_the_last_of_them_is_the_index():
    nan = np.nan
    y, indices = naive.max_pool2d_forward(picture([nan, 9, nan], [nan, 1, np.inf]), (2, 3))
    assert np.isnan(y).all()
    assert indices.item() == 3


def test_max_pool2d_of_minus_infinity_points_inside_the_picture():
    x = np.full((1, 1, 2, 2), -np.inf, F)
    y, indices = naive.max_pool2d_forward(x, 3, stride=1, padding=1)
    assert (y == -np.inf).all()
    np.testing.assert_array_equal(indices.ravel(), [0, 0, 0, 0])


def test_max_pool2d_negative_pictures_are_not_beaten_by_padding():
    y, _ = naive.max_pool2d_forward(picture([-3, -2], [-5, -4]), 3, stride=2, padding=1)
    np.testing.assert_array_equal(y, picture([-2]))


def test_max_pool2d_overlapping_windows_add_up():
    y, indices = naive.max_pool2d_forward(picture([0, 7, 0]), (1, 2), stride=1)
    np.testing.assert_array_equal(y, picture([7, 7]))
    dx = naive.max_pool2d_backward(picture([1, 10]), indices, (1, 1, 1, 3))
    np.testing.assert_array_equal(dx, picture([0, 11, 0]))


def test_max_pool2d_ceil_mode_keeps_the_last_part_of_a_window():
    x = picture([1, 2, 3])
    np.testing.assert_array_equal(naive.max_pool2d_forward(x, (1, 2))[0], picture([2]))
    np.testing.assert_array_equal(naive.max_pool2d_forward(x, (1, 2), ceil_mode=True)[0], picture([2, 3]))


def test_upsample2d_nearest():
    y = naive.upsample2d_forward(picture([1, 2]), scale_factor=(1, 2))
    np.testing.assert_array_equal(y, picture([1, 1, 2, 2]))
    np.testing.assert_array_equal(naive.upsample2d_forward(picture([1, 2, 3]), size=(1, 2)), picture([1, 2]))
    dx = naive.upsample2d_backward(picture([1, 10, 100, 1000]), (1, 1, 1, 2), scale_factor=(1, 2))
    np.testing.assert_array_equal(dx, picture([11, 1100]))


def test_upsample2d_bilinear():
    # centres at 1/4, 3/4, 5/4 and 7/4 of a pixel; those of the input at 1/2 and 3/2
    y = naive.upsample2d_forward(picture([0, 4]), size=(1, 4), mode="bilinear")
    np.testing.assert_array_equal(y, picture([0, 1, 3, 4]))
    dx = naive.upsample2d_backward(picture([0, 4, 0, 0]), (1, 1, 1, 2), size=(1, 4), mode="bilinear")
    np.testing.assert_array_equal(dx, picture([3, 1]))


def test_upsample2d_bilinear_corners_meet():
    y = naive.upsample2d_forward(picture([0, 3], [30, 33]), size=(2, 4), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(y, picture([0, 1, 2, 3], [30, 31, 32, 33]), rtol=1e-6)


# ---- elementwise, joining -------------------------------------------------------------------------------------------


def test_linear():
    x, weight = np.array([[1, 2]], F), np.array([[1, 10], [100, 1000], [0, 0]], F)
    np.testing.assert_array_equal(naive.linear_forward(x, weight, np.array([0, 0, 7], F)), [[21, 2100, 7]])
    dx, dweight, dbias = naive.linear_backward(np.array([[1, 0, 5]], F), x, weight)
    np.testing.assert_array_equal(dx, [[1, 10]])
    np.testing.assert_array_equal(dweight, [[1, 2], [0, 0], [5, 10]])
    np.testing.assert_array_equal(dbias, [1, 0, 5])


def test_relu_passes_nan_both_ways():
    x = np.array([-1, 0, 2, np.nan, np.inf, -np.inf], F)
    y = naive.relu_forward(x)
    np.testing.assert_array_equal(y, [0, 0, 2, np.nan, np.inf, 0])
    dx = naive.relu_backward(np.array([1, 2, 3, 4, 5, np.nan], F), y)
    np.testing.assert_array_equal(dx, [0, 0, 3, 4, 5, 0])


def test_sigmoid():
    y = naive.sigmoid_forward(np.array([0, np.log(3), -np.log(3), 1000, -1000]))
    np.testing.assert_allclose(y, [0.5, 0.75, 0.25, 1, 0], rtol=1e-15)
    np.testing.assert_allclose(naive.sigmoid_backward(np.full(5, 16.0), y), [4, 3, 3, 0, 0], rtol=1e-14)


def test_softmax():
    y = naive.softmax_forward(np.log([[1.0, 2.0, 5.0]]) + 1000)
    np.testing.assert_allclose(y, [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-12)
    dx = naive.softmax_backward(np.array([[0.0, 8.0, 0.0]]), y)
    np.testing.assert_allclose(dx, [[-2 / 8, 2 * 6 / 8, -2 * 5 / 8]], rtol=1e-12)


def test_add_broadcasts_and_its_gradient_sums():
    a, b = np.array([[1, 2], [3, 4]], F), np.array([10, 20], F)
    np.testing.assert_array_equal(naive.add_forward(a, b), [[11, 22], [13, 24]])
    da, db = naive.add_backward(a, (2, 2), (2,))
    np.testing.assert_array_equal(da, a)
    np.testing.assert_array_equal(db, [1 + 3, 2 + 4])


def test_concat_and_back():
    a, b = np.array([[1, 2]], F), np.array([[3]], F)
    y = naive.concat_forward([a, b])
    np.testing.assert_array_equal(y, [[1, 2, 3]])
    da, db = naive.concat_backward(y, [2, 1])
    np.testing.assert_array_equal(da, a)
    np.testing.assert_array_equal(db, b)


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_binary_cross_entropy():
    p, target = np.array([0.5, 0.25]), np.array([1.0, 0.0])
    losses = naive.binary_cross_entropy_forward(p, target, reduction="none")
    np.testing.assert_allclose(losses, [np.log(2), np.log(4 / 3)], rtol=1e-15)
    dp = naive.binary_cross_entropy_backward(1.0, p, target, np.array([1.0, 3.0]), reduction="sum")
    np.testing.assert_allclose(dp, [-2, 3 * 4 / 3], rtol=1e-15)


def test_binary_cross_entropy_clamps_logs_and_denominators():
    p, target = np.array([0, 1, 0, 1], F), np.array([1, 0, 0, 1], F)
    losses = naive.binary_cross_entropy_forward(p, target, reduction="none")
    np.testing.assert_array_equal(losses, [100, 100, 0, 0])
    dp = naive.binary_cross_entropy_backward(np.ones(4, F), p, target, reduction="none")
    np.testing.assert_allclose(dp, [-1e12, 1e12, 0, 0], rtol=1e-6)


def test_binary_cross_entropy_with_logits():
    x, target = np.array([0.0, np.log(3), 1000.0, -1000.0]), np.array([1.0, 1.0, 0.0, 1.0])
    losses = naive.binary_cross_entropy_with_logits_forward(x, target, reduction="none")
    np.testing.assert_allclose(losses, [np.log(2), np.log(4 / 3), 1000, 1000], rtol=1e-14)
    dx = naive.binary_cross_entropy_with_logits_backward(1.0, x, target, pos_weight=np.full(4, 2.0), reduction="sum")
    np.testing.assert_allclose(dx, [-1, -0.5, 1, -2], rtol=1e-14)


def test_cross_entropy():
    x, target = np.log([[1.0, 3.0], [1.0, 1.0], [1.0, 7.0]]), np.array([1, 0, -100])
    np.testing.assert_allclose(
        naive.cross_entropy_forward(x, target, reduction="none"), [np.log(4 / 3), np.log(2), 0], rtol=1e-14
    )
    # weights 1 and 3 of the true classes: a mean divides by 3 + 1
    weight = np.array([1.0, 3.0])
    mean = naive.cross_entropy_forward(x, target, weight)
    np.testing.assert_allclose(mean, (3 * np.log(4 / 3) + np.log(2)) / 4, rtol=1e-14)
    dx = naive.cross_entropy_backward(4.0, x, target, weight)
    np.testing.assert_allclose(dx, [[3 / 4, -3 / 4], [-1 / 2, 1 / 2], [0, 0]], rtol=1e-14)


def test_cross_entropy_label_smoothing():
    # half of the target on the true class, half spread over both: 3/4 and 1/4
    x, target = np.log([[1.0, 3.0]]), np.array([1])
    loss = naive.cross_entropy_forward(x, target, label_smoothing=0.5)
    np.testing.assert_allclose(loss, -3 / 4 * np.log(3 / 4) - 1 / 4 * np.log(1 / 4), rtol=1e-14)
    dx = naive.cross_entropy_backward(1.0, x, target, label_smoothing=0.5)
    np.testing.assert_allclose(dx, [[0, 0]], atol=1e-15)


def test_smooth_l1():
    x, target = np.array([0.0, 1.0, -5.0, 2.0]), np.zeros(4)
    losses = naive.smooth_l1_forward(x, target, beta=2.0, reduction="none")
    np.testing.assert_array_equal(losses, [0, 0.25, 4, 1])
    dx = naive.smooth_l1_backward(1.0, x, target, beta=2.0, reduction="sum")
    np.testing.assert_array_equal(dx, [0, 0.5, -1, 1])
    np.testing.assert_array_equal(naive.smooth_l1_backward(1.0, x, target, beta=0, reduction="sum"), [0, 1, -1, 1])


def test_sigmoid_focal():
    x, target = np.array([np.log(3), np.log(3)]), np.array([1.0, 0.0])  # p = 3/4
    losses = naive.sigmoid_focal_forward(x, target, alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(losses, [1 / 4 / 16 * np.log(4 / 3), 3 / 4 * 9 / 16 * np.log(4)], rtol=1e-14)
    plain = naive.sigmoid_focal_backward(np.ones(2), x, target, alpha=-1, gamma=0)
    np.testing.assert_allclose(plain, [-1 / 4, 3 / 4], rtol=1e-14)


def test_dice():
    x, target = np.zeros((2, 2)), np.array([[1.0, 1.0], [0.0, 0.0]])  # p = 1/2
    losses = naive.dice_forward(x, target, smooth=1.0, per_sample=True, reduction="none")
    np.testing.assert_allclose(losses, [1 - 3 / 4, 1 - 1 / 2], rtol=1e-15)
    np.testing.assert_allclose(naive.dice_forward(x, target, smooth=0.0), 1 - 2 / 4, rtol=1e-15)
    dx = naive.dice_backward(1.0, x, target, smooth=0.0)
    # -(2 t areas - overlap) / areas^2 / 4 with overlap 2 and areas 4
    np.testing.assert_allclose(dx, [[-6 / 64, -6 / 64], [2 / 64, 2 / 64]], rtol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_over_nothing_is_zero(reduction):
    x, target = np.zeros((0, 3), F), np.zeros(0, int)
    assert naive.cross_entropy_forward(x, target, reduction=reduction) == 0
    assert naive.cross_entropy_backward(1.0, x, target, reduction=reduction).shape == (0, 3)
    ignored = np.full(2, -100)
    assert naive.cross_entropy_forward(np.ones((2, 3), F), ignored, reduction=reduction) == 0
    assert not naive.cross_entropy_backward(1.0, np.ones((2, 3), F), ignored, reduction=reduction).any()
    for loss in ("binary_cross_entropy", "binary_cross_entropy_with_logits", "smooth_l1", "sigmoid_focal", "dice"):
        assert getattr(naive, f"{loss}_forward")(x, x, reduction=reduction) == 0
        assert getattr(naive, f"{loss}_backward")(1.0, x, x, reduction=reduction).shape == (0, 3)
