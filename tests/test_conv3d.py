"""Convolutions of volumes as those of images: the same numbers."""

import pytest
import torch
import torch.nn.functional as F

from ops.conv3d import convolve, innermost_channels, max_pool

KERNELS = [(1, 1, 1), (1, 3, 3), (3, 1, 1), (1, 7, 7), (7, 1, 1)]
STRIDES = [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("change", [torch.clone, innermost_channels, lambda x: x.flip(3).flip(3)])
def test_equal_those_of_torch_with_gradients(kernel, stride, change):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, 9, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    ours = convolve(change(x), weight, bias, stride)
    theirs = F.conv3d(x, weight, bias, stride, [side // 2 for side in kernel])
    torch.testing.assert_close(ours, theirs)
    cotangent = torch.randn_like(theirs)
    expected = torch.autograd.grad(theirs, (x, weight, bias), cotangent)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weight, bias), cotangent), expected)


def test_strides_of_one_pixel_leave_other_memory_alone():
    """oneDNN's own strides end the process here, on CPUs with AVX2 alone and one thread."""
    weight = torch.randn(16, 4, 1, 1, 1, requires_grad=True)
    for _ in range(200):
        x = innermost_channels(torch.randn(1, 4, 8, 16, 16)).requires_grad_()
        y = convolve(x, weight, None, (1, 2, 2))
        y.backward(torch.ones_like(y))
    assert x.grad.any()


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_equals_that_of_torch(stride):
    x = torch.randn(2, 3, 4, 9, 6)
    expected = F.max_pool3d(x, (1, 3, 3), (1, stride, stride), (0, 1, 1))
    assert torch.equal(max_pool(x, 3, stride), expected)
    assert torch.equal(max_pool(innermost_channels(x), 3, stride), expected)


def test_no_memory_is_moved_between_convolutions():
    x = innermost_channels(torch.randn(2, 8, 6, 5, 5))
    for kernel in KERNELS:
        x = convolve(x, torch.randn(8, 8, *kernel))
        assert x.is_contiguous(memory_format=torch.channels_last_3d)


def test_kernels_of_frames_and_pixels_at_once_are_refused():
    with pytest.raises(ValueError, match="no kernel of images"):
        convolve(torch.randn(1, 2, 3, 4, 4), torch.randn(2, 2, 3, 3, 3))
