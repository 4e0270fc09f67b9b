"""An encoder with all that prepares its pictures, as one network of tensors: what can be written as ONNX.

It gives what `pipeline.features.encoder.Encoder` gives. Pillow's bilinear filter is two matrix products of whole
numbers here, each rounded as Pillow rounds, first along rows and then along columns. Pillow itself takes the columns
first for some shapes (in version 13, taller than 2 : 1): there a byte may differ by 1. Depth is always the same.
"""

import copy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.features.encoder import Encoder
from pipeline.images.depth import JET

_ONE = 2**22  # what stands for 1 among the weights of Pillow's filters
_BRIGHTEST = 255


class PictureNetwork(nn.Module):
    """Pictures of one camera to features.

    It takes `[N, H, W, 3]` uint8 of a colour camera, or `[N, H, W]` float32 of a depth camera without holes, N pictures
    of the same size, and gives `[N, D]` float32.
    """

    jet: Tensor
    mean: Tensor
    scale: Tensor
    resize: Tensor | None

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        recipe = encoder.details
        self.size, self.encoding = recipe.size, recipe.depth_encoding
        self.network = with_matrix_pooling(encoder.network)
        self.register_buffer("jet", torch.from_numpy(JET.copy()))
        self.register_buffer("mean", torch.tensor(recipe.input.mean).mul(_BRIGHTEST).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(recipe.input.std).mul(_BRIGHTEST).reciprocal().view(1, 3, 1, 1))
        side = recipe.input.resize
        self.register_buffer("resize", None if side in (None, recipe.size) else _resize_matrix(recipe.size, side))

    def forward(self, pictures: Tensor) -> Tensor:
        images = self._colour(pictures) if self.encoding is None else self._depth(pictures)  # [N, 3, S, S]
        pixels = (images.float() - self.mean) * self.scale
        if self.resize is not None:
            pixels = self.resize @ pixels @ self.resize.T
        return cast(Tensor, self.network(pixels)).float()

    def _colour(self, pictures: Tensor) -> Tensor:
        """As `pipeline.images.resize.resize_rgb`, `[N, 3, S, S]`."""
        height, width, longer = _sides(pictures)
        values = pictures.permute(0, 3, 1, 2).double()
        across = _rounded(values @ _filter(width, longer, self.size).T)  # [N, 3, H, S]
        return _rounded(_filter(height, longer, self.size) @ across)

    def _depth(self, pictures: Tensor) -> Tensor:
        """As `pipeline.images.depth.encode_depth` once holes are filled, `[N, 3, S, S]`."""
        depth = pictures.double()
        near, far = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
        extent = torch.where(far > near, far - near, 1.0)  # a constant picture has no extent: it becomes 0
        levels = torch.floor((depth - near) / extent * _BRIGHTEST + 0.5).long()
        height, width, longer = _sides(pictures)
        levels = levels.index_select(2, _nearest(width, longer, self.size))
        levels = levels.index_select(1, _nearest(height, longer, self.size))  # [N, S, S]
        if self.encoding == "jet":
            return self.jet[levels].permute(0, 3, 1, 2)
        return levels.unsqueeze(1).expand(-1, 3, -1, -1)


def _sides(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows and the columns of pictures by number, `[H]` and `[W]`, and the length of the longer side."""
    rows, columns = (torch.arange(pictures.shape[axis]) for axis in (1, 2))
    return rows, columns, torch.maximum(rows[-1], columns[-1]) + 1


def _fit(length: Tensor, longer: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How long a side is in the square, and which of its pixels each of the square's shows, `[S]`."""
    scaled = torch.div(2 * length * size + longer, 2 * longer, rounding_mode="floor").clamp_min(1)
    start = torch.div(size - scaled, 2, rounding_mode="floor")
    return scaled, torch.minimum((torch.arange(size) - start).clamp_min(0), scaled - 1)


def _nearest(pixels: Tensor, longer: Tensor, size: int) -> Tensor:
    """Which pixel of a side each of the square's copies, `[S]`, as `pipeline.images.resize.resize_depth` does."""
    length = pixels[-1] + 1
    scaled, target = _fit(length, longer, size)
    return torch.div((2 * target + 1) * length, 2 * scaled, rounding_mode="floor")


def _filter(pixels: Tensor, longer: Tensor, size: int) -> Tensor:
    """Pillow's weights of a side's pixels in each of the square's, whole numbers in float64, `[S, length]`."""
    length = pixels[-1] + 1
    scaled, target = _fit(length, longer, size)
    scale = length.double() / scaled.double()
    centre = (target.double() + 0.5) * scale
    distance = (pixels.double() - centre.unsqueeze(1) + 0.5) * (1.0 / scale.clamp_min(1.0))
    weights = (1 - distance.abs()).clamp_min(0)
    return torch.floor(weights / weights.sum(1, keepdim=True) * _ONE + 0.5)


def _rounded(sums: Tensor) -> Tensor:
    """Sums of bytes with a filter's weights, rounded to bytes as Pillow does, in float64."""
    return torch.floor((sums + _ONE / 2) / _ONE).clamp(0, _BRIGHTEST)


def _resize_matrix(size: int, side: int) -> Tensor:
    """What `pipeline.features.backbones.InputRecipe` scales images by along each axis, `[side, size]`."""
    unit = torch.eye(size).view(1, size, size, 1).expand(-1, -1, -1, size)
    scaled = functional.interpolate(unit, (side, size), mode="bilinear", antialias=True)
    return scaled[0, :, :, 0].T.contiguous()


class MatrixPooling(nn.Module):
    """Adaptive average pooling as two matrix products: ONNX has it for multiples of the output's size alone."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = (output, output) if isinstance(output, int) else tuple(output)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_pooling(length, out or length) for length, out in zip(x.shape[-2:], self.output, strict=True))
        return rows @ x @ columns.T


def _pooling(length: int, output: int) -> Tensor:
    """The share of each of a side's places in each place of the output, `[output, length]`."""
    shares = np.zeros((output, length), np.float32)
    for place in range(output):
        begin, end = place * length // output, -(-(place + 1) * length // output)
        shares[place, begin:end] = 1 / (end - begin)
    return torch.tensor(shares.tolist())


def with_matrix_pooling(network: nn.Module) -> nn.Module:
    """A copy of a network whose adaptive pooling is `MatrixPooling`; it shares the weights."""
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, memo=cast(Any, weights))
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            copied.set_submodule(name, MatrixPooling(module.output_size))
    return copied.eval()
