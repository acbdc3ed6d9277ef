"""Tensor sizes of the models that the benchmarks stand for."""

from __future__ import annotations

SHAPES: dict[int, tuple[int, ...]] = {  # coordinates of each tensor
    101_770: (784 * 128, 128, 128 * 10, 10),
    199_210: (784 * 200, 200, 200 * 200, 200, 200 * 10, 10),
    1_663_370: (5 * 5 * 32, 32, 5 * 5 * 32 * 64, 64, 3136 * 512, 512, 512 * 10, 10),
}


def resnet18_sizes(classes: int = 10) -> tuple[int, ...]:
    """Tensors of a ResNet-18 with a 3x3 stem: 11,173,962 coordinates for ten classes."""
    channels = 64
    sizes = [3 * 3 * 3 * channels, channels, channels]
    for width in (64, 64, 128, 128, 256, 256, 512, 512):
        sizes += [9 * channels * width, width, width, 9 * width * width, width, width]
        if channels != width:
            sizes += [channels * width, width, width]
        channels = width
    return (*sizes, channels * classes, classes)


def tensor_sizes(size: int) -> tuple[int, ...]:
    """Tensors of the model that a size stands for; any other size is one matrix and one bias."""
    if size == 11_000_000:
        return resnet18_sizes()
    return SHAPES.get(size, (size - 10, 10))
