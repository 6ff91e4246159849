"""Rows of the table of cases: convolution, normalisation, pooling, resizing, elementwise operators, joining."""

import numpy as np
from case_builders import WIDTHS, case, filled, integers, normal


def _conv2d_rows():
    def row(name, x, weight, bias=True, **parameters):
        return case("conv2d", name, normal(x=x, weight=weight, bias=weight[:1] if bias else None), **parameters)

    yield row("k3", (2, 3, 6, 7), (4, 3, 3, 3))
    yield row("k3_p1_nobias", (2, 3, 6, 7), (4, 3, 3, 3), bias=False, padding=1)
    yield row("k1", (2, 5, 4, 9), (3, 5, 1, 1))
    yield row("k1_s2", (2, 5, 5, 9), (3, 5, 1, 1), stride=2)
    yield row("k1_p1", (1, 3, 3, 4), (2, 3, 1, 1), padding=1)
    yield row("k2", (1, 2, 5, 6), (3, 2, 2, 2))
    yield row("k3_s2_p1", (2, 3, 9, 8), (4, 3, 3, 3), stride=2, padding=1)
    yield row("k3_s3", (1, 2, 11, 10), (3, 2, 3, 3), stride=3)
    yield row("k5_p2", (1, 2, 7, 8), (3, 2, 5, 5), padding=2)
    yield row("k7_s2_p3", (1, 3, 13, 12), (4, 3, 7, 7), stride=2, padding=3)
    yield row("k3_d2_p2", (1, 3, 8, 9), (4, 3, 3, 3), padding=2, dilation=2)
    yield row("k3_d3_s2_p3", (1, 2, 10, 11), (3, 2, 3, 3), stride=2, padding=3, dilation=3)
    yield row("asymmetric", (2, 3, 9, 10), (4, 3, 3, 5), stride=(2, 1), padding=(0, 2), dilation=(1, 2))
    yield row("asymmetric_kernel_1x3", (1, 2, 5, 6), (3, 2, 1, 3), stride=[1, 2], padding=[2, 0])
    yield row("groups2", (2, 6, 5, 7), (4, 3, 3, 3), padding=1, groups=2)
    yield row("groups3_k1", (1, 6, 4, 5), (9, 2, 1, 1), groups=3)
    yield row("depthwise", (2, 5, 6, 9), (5, 1, 3, 3), padding=1, groups=5)
    yield row("depthwise_multiplier2_s2", (1, 3, 7, 8), (6, 1, 3, 3), stride=2, padding=1, groups=3)
    yield row("padding_beyond_kernel", (1, 2, 3, 4), (3, 2, 3, 3), padding=4)
    yield row("map_1x1", (3, 4, 1, 1), (5, 4, 1, 1))
    yield row("map_1x1_k3_p1", (2, 3, 1, 1), (4, 3, 3, 3), padding=1)
    yield row("kernel_fills_picture", (2, 2, 4, 5), (3, 2, 4, 5))
    yield row("stride_beyond_picture", (1, 2, 4, 4), (2, 2, 2, 2), stride=9)
    yield row("empty_batch", (0, 3, 6, 7), (4, 3, 3, 3), padding=1)
    yield row("one_channel", (2, 1, 6, 9), (8, 1, 3, 3), padding=1)
    yield row("needs_dx", (2, 3, 6, 7), (4, 3, 3, 3), padding=1, needs=(True, False, False))
    yield row("needs_dweight", (2, 3, 6, 7), (4, 3, 3, 3), padding=1, needs=(False, True, False))
    yield row("needs_dbias", (2, 3, 6, 7), (4, 3, 3, 3), padding=1, needs=(False, False, True))
    yield row("needs_nothing", (2, 3, 6, 7), (4, 3, 3, 3), needs=(False, False, False))
    for width in WIDTHS:
        yield row(f"k3_p1_width{width}", (1, 2, 3, width), (3, 2, 3, 3), padding=1)
        yield row(f"k1_width{width}", (1, 3, 2, width), (2, 3, 1, 1))
        yield row(f"k3_s2_p1_width{width}", (1, 2, 4, width), (3, 2, 3, 3), stride=2, padding=1)
    for channels in (7, 8, 9, 15, 16, 17, 33):
        yield row(f"k3_p1_channels{channels}", (1, channels, 4, 5), (3, channels, 3, 3), padding=1)
        yield row(f"k3_p1_outputs{channels}", (1, 3, 4, 5), (channels, 3, 3, 3), padding=1)
    yield row("k1_channels33_outputs17", (2, 33, 3, 5), (17, 33, 1, 1))


def _conv_transpose2d_rows():
    def row(name, x, weight, bias=True, **parameters):
        outputs = (weight[1] * parameters.get("groups", 1),)
        make = normal(x=x, weight=weight, bias=outputs if bias else None)
        return case("conv_transpose2d", name, make, **parameters)

    yield row("k2_s2", (2, 3, 4, 5), (3, 4, 2, 2), stride=2)
    yield row("k2_s2_nobias", (2, 3, 4, 5), (3, 4, 2, 2), bias=False, stride=2)
    yield row("k3", (1, 2, 4, 5), (2, 3, 3, 3))
    yield row("k1", (2, 3, 4, 5), (3, 2, 1, 1))
    yield row("k3_s2_p1", (1, 3, 4, 5), (3, 2, 3, 3), stride=2, padding=1)
    yield row("k3_s2_p1_op1", (2, 3, 4, 5), (3, 2, 3, 3), stride=2, padding=1, output_padding=1)
    yield row("k4_s2_p1", (1, 3, 4, 5), (3, 2, 4, 4), stride=2, padding=1)
    yield row("k2_s3_gaps", (1, 2, 3, 4), (2, 3, 2, 2), stride=3)
    yield row("k3_d2", (1, 2, 4, 5), (2, 3, 3, 3), padding=1, dilation=2)
    yield row("output_padding_below_dilation", (1, 2, 4, 5), (2, 3, 3, 3), dilation=3, output_padding=2)
    yield row("asymmetric", (2, 2, 4, 5), (2, 3, 2, 3), stride=(3, 1), padding=(0, 1), output_padding=(2, 0))
    yield row("asymmetric_dilation", (1, 2, 4, 3), (2, 3, 3, 2), stride=[1, 2], dilation=[1, 3], output_padding=[0, 2])
    yield row("groups2", (2, 4, 3, 4), (4, 3, 3, 3), stride=2, padding=1, groups=2)
    yield row("depthwise", (1, 5, 4, 3), (5, 1, 2, 2), stride=2, groups=5)
    yield row("map_1x1", (2, 3, 1, 1), (3, 4, 2, 2), stride=2)
    yield row("padding_crops", (1, 2, 5, 6), (2, 3, 3, 3), padding=2)
    yield row("padding_beyond_kernel", (1, 2, 6, 7), (2, 3, 1, 1), padding=2)
    yield row("empty_batch", (0, 3, 4, 5), (3, 4, 2, 2), stride=2)
    yield row("needs_dx", (2, 3, 4, 5), (3, 4, 2, 2), stride=2, needs=(True, False, False))
    yield row("needs_dweight", (2, 3, 4, 5), (3, 4, 2, 2), stride=2, needs=(False, True, False))
    yield row("needs_dbias", (2, 3, 4, 5), (3, 4, 2, 2), stride=2, needs=(False, False, True))
    for width in WIDTHS:
        yield row(f"k2_s2_width{width}", (1, 2, 3, width), (2, 3, 2, 2), stride=2)
        yield row(f"k3_p1_width{width}", (1, 2, 3, width), (2, 3, 3, 3), padding=1)
    for channels in (8, 17, 33):
        yield row(f"k2_s2_channels{channels}", (1, channels, 3, 4), (channels, 2, 2, 2), stride=2)
        yield row(f"k2_s2_outputs{channels}", (1, 2, 3, 4), (2, channels, 2, 2), stride=2)


def _batch_norm_rows():
    def inputs(shape, affine=True, running=True, mean=0.0, spread=1.0):
        def make(rng, dtype):
            c = shape[1]
            x = mean + spread * rng.standard_normal(shape)
            gamma, beta = rng.standard_normal(c), rng.standard_normal(c)
            running_mean, running_var = mean + rng.standard_normal(c), spread**2 * rng.uniform(0.5, 2, c)
            values = {
                "x": x,
                "gamma": gamma if affine else None,
                "beta": beta if affine else None,
                "running_mean": running_mean if running else None,
                "running_var": running_var if running else None,
            }
            return {name: None if a is None else np.asarray(a, dtype) for name, a in values.items()}

        return make

    def row(name, make, scale=1.0, training=True, **parameters):
        return case("batch_norm", name, make, scale, training=training, **parameters)

    def without(name, make):
        return lambda rng, dtype: make(rng, dtype) | {name: None}

    yield row("training", inputs((4, 3, 5, 6)))
    yield row("evaluation", inputs((4, 3, 5, 6)), training=False)
    yield row("training_no_affine", inputs((3, 2, 4, 4), affine=False))
    yield row("evaluation_no_affine", inputs((3, 2, 4, 4), affine=False), training=False)
    yield row("training_gamma_only", without("beta", inputs((3, 2, 4, 4))))
    yield row("training_beta_only", without("gamma", inputs((3, 2, 4, 4))))
    yield row("training_no_running", inputs((3, 2, 4, 4), running=False))
    yield row("one_picture", inputs((1, 4, 6, 5)))
    yield row("maps_1x1", inputs((5, 4, 1, 1)))
    # two values per channel: normalised to +-1 whatever they are, and the gradient nearly cancels
    yield row("two_values", inputs((1, 3, 1, 2)), scale=100.0)
    yield row("momentum1", inputs((3, 2, 4, 4)), momentum=1.0)
    yield row("momentum0", inputs((3, 2, 4, 4)), momentum=0.0)
    # differences of values near 100 carry the rounding of 100
    yield row("large_mean", inputs((4, 3, 5, 5), mean=100.0), scale=100.0)
    yield row("small_variance", inputs((3, 2, 4, 4), spread=1e-3), scale=1000.0, eps=1e-3)
    yield row("evaluation_eps0", inputs((3, 2, 4, 4)), training=False, eps=0.0)
    yield row("empty_batch_training", inputs((0, 3, 4, 5)))
    yield row("empty_batch_evaluation", inputs((0, 3, 4, 5)), training=False)
    for width in WIDTHS:
        yield row(f"training_width{width}", inputs((2, 2, 3, width)))
        yield row(f"evaluation_width{width}", inputs((1, 3, 1, width)), training=False)
    for channels in (1, 8, 17, 33):
        yield row(f"training_channels{channels}", inputs((3, channels, 2, 3)))


def _max_pool2d_rows():
    def row(name, x, kernel_size, values=None, ties=False, **parameters):
        make = filled(integers(0, 3, x=x) if ties else normal(x=x), x=values or [])
        return case("max_pool2d", name, make, kernel_size=kernel_size, **parameters)

    inf, nan = np.inf, np.nan
    nans = [((0, 0, 1, 1), nan), ((0, 0, 2, 2), nan), ((0, 1, 5, 6), nan)]
    yield row("k2", (2, 3, 6, 8), 2)
    yield row("k2_odd", (2, 3, 7, 9), 2)
    yield row("k2_odd_ceil", (2, 3, 7, 9), 2, ceil_mode=True)
    yield row("k2_ties", (2, 3, 6, 8), 2, ties=True)
    yield row("k3_s2_p1", (2, 3, 7, 8), 3, stride=2, padding=1)
    yield row("k3_s2_p1_ties", (2, 3, 7, 8), 3, stride=2, padding=1, ties=True)
    yield row("k3_s2_p1_ceil", (2, 3, 7, 8), 3, stride=2, padding=1, ceil_mode=True)
    yield row("k3_s1_p1_ties", (1, 2, 6, 7), 3, stride=1, padding=1, ties=True)
    yield row("k3_s2_ceil", (1, 2, 8, 9), 3, stride=2, ceil_mode=True)
    yield row("k2_s2_p1_ceil_drops_window", (1, 2, 5, 5), 2, stride=2, padding=1, ceil_mode=True)
    yield row("k3_d2_p1", (1, 2, 9, 10), 3, stride=2, padding=1, dilation=2)
    yield row("k2_d3_ceil", (1, 2, 9, 10), 2, stride=2, dilation=3, ceil_mode=True)
    yield row("k1_s2", (1, 2, 5, 6), 1, stride=2)
    yield row("asymmetric", (1, 2, 7, 6), (3, 2), stride=(2, 1), padding=(1, 0), ties=True)
    yield row("asymmetric_dilation", (1, 2, 7, 8), [2, 3], stride=[1, 2], padding=[0, 1], dilation=[3, 1])
    yield row("stride_beyond_kernel", (1, 2, 8, 9), 2, stride=3)
    yield row("map_1x1", (2, 3, 1, 1), 1)
    yield row("kernel_fills_picture", (2, 3, 4, 5), (4, 5))
    yield row("empty_batch", (0, 3, 6, 8), 2)
    yield row("nan", (1, 2, 6, 7), 3, stride=2, padding=1, values=nans)
    yield row("nan_k2", (1, 1, 4, 8), 2, values=[((0, 0, 0, 0), nan), ((0, 0, 1, 1), nan), ((0, 0, 2, 4), nan)])
    yield row("nan_beside_inf", (1, 1, 2, 4), 2, values=[((0, 0, 0, 0), nan), ((0, 0, 0, 1), inf), ((0, 0, 0, 2), inf)])
    yield row("minus_inf_all", (1, 2, 6, 7), 3, stride=2, padding=1, values=[(..., -inf)])
    yield row("minus_inf_some", (1, 2, 6, 7), 2, values=[((0, slice(None), slice(0, 3)), -inf)])
    for width in WIDTHS:
        yield row(f"k2_s2_ceil_width{width}", (1, 2, 4, width), 2, ceil_mode=True, ties=True)
        yield row(f"k3_s1_p1_width{width}", (1, 2, 3, width), 3, stride=1, padding=1)
        yield row(f"k3_s2_p1_width{width}", (1, 2, 3, width), 3, stride=2, padding=1)


def _upsample2d_rows():
    def row(name, x, **parameters):
        return case("upsample2d", name, normal(x=x), **parameters)

    for mode in ("nearest", "bilinear"):
        yield row(f"{mode}_x2", (2, 3, 4, 5), scale_factor=2, mode=mode)
        yield row(f"{mode}_x3x2", (1, 2, 4, 5), scale_factor=(3, 2), mode=mode)
        yield row(f"{mode}_x1.5", (1, 2, 5, 6), scale_factor=1.5, mode=mode)
        yield row(f"{mode}_x2.7", (1, 2, 5, 6), scale_factor=[2.7, 1.1], mode=mode)
        yield row(f"{mode}_x0.5", (1, 2, 8, 9), scale_factor=0.5, mode=mode)
        yield row(f"{mode}_to_13x9", (1, 2, 5, 6), size=(13, 9), mode=mode)
        yield row(f"{mode}_down_to_4x5", (1, 2, 9, 11), size=(4, 5), mode=mode)
        yield row(f"{mode}_same_size", (1, 2, 4, 5), size=(4, 5), mode=mode)
        yield row(f"{mode}_to_square", (1, 2, 4, 5), size=7, mode=mode)
        yield row(f"{mode}_to_1x1", (1, 2, 4, 5), size=1, mode=mode)
        yield row(f"{mode}_map_1x1", (2, 3, 1, 1), size=(4, 3), mode=mode)
        yield row(f"{mode}_empty_batch", (0, 3, 4, 5), scale_factor=2, mode=mode)
        for width in WIDTHS:
            yield row(f"{mode}_x2_width{width}", (1, 2, 2, width), scale_factor=2, mode=mode)
            yield row(f"{mode}_to_width{width}", (1, 2, 3, 11), size=(2, width), mode=mode)
    # positions in float32 and in float64 fall into different pixels
    yield row("nearest_rounds_in_float32", (1, 1, 26, 14), size=(22, 46), mode="nearest")
    for name, shape, size in (
        ("to_13x9", (1, 2, 5, 6), (13, 9)),
        ("down_to_4x5", (1, 2, 9, 11), (4, 5)),
        ("to_1x1", (1, 2, 4, 5), (1, 1)),
        ("map_1x1", (2, 3, 1, 1), (4, 3)),
        ("to_width33", (1, 2, 3, 16), (6, 33)),
    ):
        yield row(f"bilinear_corners_{name}", shape, size=size, mode="bilinear", align_corners=True)
    yield row("bilinear_corners_x2", (2, 3, 4, 5), scale_factor=2, mode="bilinear", align_corners=True)


def _linear_rows():
    def row(name, batch, features, outputs, bias=True, **parameters):
        shapes = {"x": (batch, features), "weight": (outputs, features), "bias": (outputs,) if bias else None}
        return case("linear", name, normal(**shapes), **parameters)

    yield row("plain", 4, 6, 5)
    yield row("no_bias", 4, 6, 5, bias=False)
    yield row("one_of_each", 1, 1, 1)
    yield row("empty_batch", 0, 6, 5)
    yield row("needs_dx", 4, 6, 5, needs=(True, False, False))
    yield row("needs_dweight", 4, 6, 5, needs=(False, True, False))
    yield row("needs_dbias", 4, 6, 5, needs=(False, False, True))
    for size in WIDTHS:
        yield row(f"features{size}", 3, size, 4)
        yield row(f"outputs{size}", 2, 5, size)
    yield row("large", 65, 70, 33)


#: Shapes of every number of axes, for operators that take any.
SHAPES = ((), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (2, 2, 1, 3, 2), *((2, width) for width in WIDTHS))


def _elementwise_rows():
    inf, nan = np.inf, np.nan
    special = [
        (0, 0.0),
        (1, -0.0),
        (2, inf),
        (3, -inf),
        (4, nan),
        (5, 1000.0),
        (6, -1000.0),
        (7, 1e-30),
        (8, -1e-30),
        (9, 30.0),
        (10, -30.0),
    ]
    for function in ("relu", "sigmoid"):
        for shape in SHAPES:
            yield case(function, f"shape{shape}", normal(x=shape))
        yield case(function, "special_values", filled(normal(x=(37,)), x=special))
        yield case(function, "larger_than_a_task", normal(x=(3, 20_001)))

    for shape in SHAPES[2:]:
        yield case("softmax", f"shape{shape}", normal(x=shape))
    for axis in (0, 1, 2, 3, -1, -4):
        yield case("softmax", f"axis{axis}", normal(x=(2, 3, 4, 5)), axis=axis)
    yield case("softmax", "one_axis", normal(x=(5,)), axis=0)
    yield case("softmax", "one_class", normal(x=(3, 1, 4)))
    yield case("softmax", "ties", integers(0, 2, x=(3, 4, 5)))
    yield case(
        "softmax", "large", filled(normal(x=(3, 4)), x=[((0, 1), 1000.0), ((1, 2), -1000.0), ((2, slice(None)), 1e4)])
    )
    yield case("softmax", "minus_inf", filled(normal(x=(2, 4)), x=[((0, 1), -inf), ((1, slice(0, 3)), -inf)]))
    yield case("softmax", "nan", filled(normal(x=(2, 4, 3)), x=[((0, 1, 1), nan)]))

    for shape in SHAPES:
        yield case("add", f"shape{shape}", normal(a=shape, b=shape))
    for a, b in (
        ((2, 3, 4, 5), (3, 1, 1)),
        ((2, 3, 4, 5), ()),
        ((), (2, 3)),
        ((1, 3, 1, 5), (2, 1, 4, 1)),
        ((4,), (2, 3, 4)),
        ((2, 3, 4), (1, 1, 1)),
        ((0, 3), (1, 3)),
        ((2, 17, 33), (17, 1)),
    ):
        yield case("add", f"broadcast{a}{b}", normal(a=a, b=b))
    yield case("add", "special_values", filled(normal(a=(4,), b=(4,)), a=[(0, inf), (1, inf), (2, nan)], b=[(1, -inf)]))


def _concat_rows():
    def row(name, *shapes, **parameters):
        def make(rng, dtype):
            return {"arrays": [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]}

        return case("concat", name, make, **parameters)

    yield row("two", (2, 3, 4, 5), (2, 2, 4, 5))
    yield row("one", (2, 3, 4, 5))
    yield row("three", (2, 1, 3), (2, 4, 3), (2, 2, 3))
    yield row("no_channels", (2, 0, 4, 5), (2, 2, 4, 5))
    yield row("empty_batch", (0, 3, 4, 5), (0, 2, 4, 5))
    yield row("axis0", (1, 3), (4, 3), axis=0)
    yield row("axis2", (2, 3, 1, 5), (2, 3, 4, 5), axis=2)
    yield row("axis_last", (2, 3, 1), (2, 3, 4), axis=-1)
    yield row("axis0_of_one", (3,), (5,), axis=0)
    for width in WIDTHS:
        yield row(f"width{width}", (2, 1, 3, width), (2, 2, 3, width))


def rows():
    """Return the rows of this file."""
    yield from _conv2d_rows()
    yield from _conv_transpose2d_rows()
    yield from _batch_norm_rows()
    yield from _max_pool2d_rows()
    yield from _upsample2d_rows()
    yield from _linear_rows()
    yield from _elementwise_rows()
    yield from _concat_rows()
