"""Each kernel against a second, plain computation of Apple's definition."""

import numpy as np
import pytest
import torch

from softedge.errors import UserError
from softedge.export.coreml.mil_ops import OPS


def numbers(*values):
    return torch.tensor(values)


def padded_conv(x, weight, pad_type, strides, pad=(0, 0, 0, 0)):
    arguments = {
        "strides": numbers(*strides),
        "dilations": numbers(1, 1),
        "groups": torch.tensor(1),
        "pad": numbers(*pad),
    }
    return OPS["conv"]({"x": x, "weight": weight, "pad_type": pad_type, **arguments})


@pytest.mark.parametrize("pad_type", ["valid", "custom", "same", "same_lower"])
def test_conv_is_the_sum_over_its_window_wherever_the_padding_goes(pad_type):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 3, 6, 6)).astype(np.float32), rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    before, after = {"valid": (0, 0), "custom": (1, 2), "same": (0, 1), "same_lower": (1, 0)}[pad_type]
    actual = padded_conv(torch.from_numpy(x), torch.from_numpy(weight), pad_type, (2, 2), (before, after) * 2).numpy()
    wide = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    size = (wide.shape[2] - 3) // 2 + 1
    expected = np.zeros((2, 4, size, size))
    for i in range(size):
        for j in range(size):
            window = wide[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, :, i, j] = np.einsum("nchw,ochw->no", window, weight)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_quantize_then_dequantize_rounds_to_the_grid_and_clips():
    values = torch.tensor([-300.0, -0.26, -0.25, 0.0, 0.25, 0.26, 0.74, 300.0])
    scale, zero = torch.tensor(0.5), torch.tensor(3, dtype=torch.int8)
    q = OPS["quantize"]({"input": values, "scale": scale, "zero_point": zero, "output_dtype": "int8"})
    assert q.tolist() == [-128, 2, 3, 3, 3, 4, 4, 127]  # -0.25 / 0.5 = -0.5 rounds to even
    back = OPS["dequantize"]({"input": q, "scale": scale, "zero_point": zero})
    assert back.tolist() == [-65.5, -0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 62.0]


def test_affine_dequantize_scales_each_channel_of_its_axis():
    data = torch.tensor([[2, 4], [6, 8]], dtype=torch.int8)
    arguments = {"quantized_data": data, "scale": torch.tensor([0.5, 0.25]), "zero_point": torch.tensor([0, 4])}
    assert OPS["constexpr_affine_dequantize"]({**arguments, "axis": torch.tensor(0)}).tolist() == [[1, 2], [0.5, 1]]
    assert OPS["constexpr_affine_dequantize"]({**arguments, "axis": torch.tensor(1)}).tolist() == [[1, 0], [3, 1]]


def test_blockwise_scale_of_two_by_one_blocks():
    data = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=torch.int8)
    scale = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    found = OPS["constexpr_blockwise_shift_scale"]({"data": data, "scale": scale})
    assert found.tolist() == [[1, 20], [3, 40], [500, 6000], [700, 8000]]


def test_average_pool_can_leave_the_padding_out():
    arguments = {
        "x": torch.ones(1, 1, 2, 2),
        "kernel_sizes": numbers(3, 3),
        "strides": numbers(1, 1),
        "pad_type": "custom",
        "pad": numbers(1, 1, 1, 1),
    }
    assert OPS["avg_pool"](arguments).unique().tolist() == pytest.approx([4 / 9])
    assert OPS["avg_pool"]({**arguments, "exclude_padding_from_average": torch.tensor(True)}).unique().tolist() == [1.0]


def test_max_pool_ignores_the_padding_even_below_zero():
    arguments = {
        "kernel_sizes": numbers(3, 3),
        "strides": numbers(2, 2),
        "pad_type": "custom",
        "pad": numbers(1, 1, 1, 1),
    }
    assert OPS["max_pool"]({"x": -torch.ones(1, 1, 4, 4), **arguments}).max().item() == -1.0


def test_activations_match_their_formulas_and_keep_half_precision():
    x = torch.linspace(-4, 4, 33, dtype=torch.float16)
    wide = x.double().numpy()
    half = {"alpha": torch.tensor(1 / 6, dtype=torch.float16), "beta": torch.tensor(0.5, dtype=torch.float16)}
    expected = {
        "relu": np.maximum(wide, 0),
        "relu6": np.clip(wide, 0, 6),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "silu": wide / (1 + np.exp(-wide)),
        "leaky_relu": np.maximum(wide, wide / 6),
        "sigmoid_hard": np.clip(wide / 6 + 0.5, 0, 1),
    }
    for kind, values in expected.items():
        actual = OPS[kind]({"x": x, **half})
        assert actual.dtype == torch.float16
        np.testing.assert_allclose(actual.numpy(), values, atol=2e-3)


def test_thresholded_relu_is_zero_below_its_threshold():
    found = OPS["thresholded_relu"]({"x": numbers(-1.0, 1.0, 2.0, 3.0), "alpha": torch.tensor(2.0)})
    assert found.tolist() == [0.0, 0.0, 2.0, 3.0]


def test_reshape_keeps_a_batch_that_the_file_does_not_know():
    x = torch.arange(24.0).reshape(4, 6, 1, 1)
    assert OPS["reshape"]({"x": x, "shape": numbers(1, 6)}).tolist() == x.reshape(4, 6).tolist()


def test_split_gives_parts_of_the_sizes_asked_for_or_equal_ones():
    x = torch.arange(12.0).reshape(2, 6)
    unequal = OPS["split"]({"x": x, "split_sizes": numbers(1, 5), "axis": torch.tensor(1)})
    assert [part.tolist() for part in unequal] == [[[0], [6]], [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]]
    equal = OPS["split"]({"x": x, "num_splits": torch.tensor(3), "axis": torch.tensor(1)})
    assert [part.tolist() for part in equal] == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]


def test_matmul_transposes_either_side():
    x, y = torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3)
    assert OPS["matmul"]({"x": x, "y": y, "transpose_y": torch.tensor(True)}).tolist() == [[5, 14], [14, 50]]


def test_classify_names_the_most_probable_class():
    label, probabilities = OPS["classify"](
        {"probabilities": torch.tensor([[0.1, 0.9], [0.6, 0.4]]), "classes": ["cat", "dog"]}
    )
    assert label == ["dog", "cat"]
    assert probabilities.shape == (2, 2)


def test_pooling_with_ceil_mode_is_refused_rather_than_wrong():
    with pytest.raises(UserError, match="ceil_mode"):
        OPS["max_pool"]({"x": torch.ones(1, 1, 4, 4), "kernel_sizes": numbers(2, 2), "ceil_mode": torch.tensor(True)})


def test_layer_norm_gelu_and_pad_are_those_of_torch():
    rng = torch.Generator().manual_seed(0)
    x, gamma, beta = (torch.randn(shape, generator=rng) for shape in ((2, 4, 6), (6,), (6,)))
    arguments = {"x": x, "axes": numbers(-1), "gamma": gamma, "beta": beta, "epsilon": torch.tensor(1e-3)}
    expected = torch.nn.functional.layer_norm(x, (6,), gamma, beta, 1e-3)
    assert torch.allclose(OPS["layer_norm"](arguments), expected, atol=1e-6)
    exact = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    assert torch.allclose(OPS["gelu"]({"x": x, "mode": "EXACT"}), exact, atol=1e-6)
    assert torch.allclose(OPS["gelu"]({"x": x, "mode": "TANH_APPROXIMATION"}), exact, atol=1e-3)
    actual = OPS["pad"]({"x": x, "pad": numbers(0, 0, 1, 2, 3, 0), "constant_val": torch.tensor(7.0)})
    assert np.array_equal(actual.numpy(), np.pad(x.numpy(), ((0, 0), (1, 2), (3, 0)), constant_values=7))
    actual = OPS["pad"]({"x": x, "pad": numbers(0, 0, 0, 0, 2, 1), "mode": "reflect"})
    assert np.array_equal(actual.numpy(), np.pad(x.numpy(), ((0, 0), (0, 0), (2, 1)), mode="reflect"))


@pytest.mark.parametrize("keep", [True, False])
def test_l2_norm_is_the_root_of_the_sum_of_squares(keep):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    found = OPS["reduce_l2_norm"]({"x": torch.from_numpy(x), "axes": numbers(-1), "keep_dims": torch.tensor(keep)})
    np.testing.assert_allclose(found, np.sqrt((x**2).sum(-1, keepdims=keep)), rtol=1e-5)


def test_slices_are_numpys():
    x = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    ends = {"begin": numbers(0, -4, 5), "end": numbers(2, 5, 0), "stride": numbers(1, 2, -2)}
    found = OPS["slice_by_index"]({"x": torch.from_numpy(x), **ends})
    np.testing.assert_array_equal(found, x[0:2, -4:5:2, 5:0:-2])
    masks = {"begin_mask": numbers(True, False, False), "end_mask": numbers(False, True, False)}
    squeezed = {"squeeze_mask": numbers(False, False, True)}
    found = OPS["slice_by_index"]({"x": torch.from_numpy(x), **ends, **masks, **squeezed})
    np.testing.assert_array_equal(found, x[:2, -4::2, 5])


def test_one_value_alone_is_its_own_concatenation_and_tiles_repeat_each_axis():
    x = torch.arange(6).reshape(2, 3)
    assert OPS["concat"]({"values": x, "axis": torch.tensor(1)}) is x
    assert OPS["tile"]({"x": x, "reps": numbers(1, 2)}).tolist() == [[0, 1, 2] * 2, [3, 4, 5] * 2]


def test_a_declared_shape_is_kept_and_a_larger_batch_keeps_its_first_axis():
    x = torch.arange(24)
    assert OPS["reshape"]({"x": x.reshape(4, 6), "shape": numbers(1, 4, 6)}).shape == (1, 4, 6)
    assert OPS["reshape"]({"x": x.reshape(2, 12), "shape": numbers(1, 3, 4)}).shape == (2, 3, 4)
    assert OPS["reshape"]({"x": x.reshape(2, 12), "shape": numbers(1, -1)}).shape == (2, 12)
