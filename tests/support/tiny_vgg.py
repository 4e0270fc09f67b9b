"""A network of VGG16's form with thousands of weights in place of 138 million, for all that does not need the real one.

Features, adaptive pooling and seven classifier layers in the same places; fc1 has 12 values. The tests put it in the
place of `pipeline.features.vgg.vgg16`; one slow test takes the real VGG16 all the way.
"""

import torch
from torch import Tensor, nn

WIDTH = 12


class TinyVgg(nn.Module):
    def __init__(self, weights: object = None, init_weights: bool = False) -> None:
        super().__init__()
        assert weights is None
        assert not init_weights
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Sequential(
            nn.Linear(6 * 9, WIDTH),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(WIDTH, 8),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(8, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits
