"""The words that settings and command-line options share, kept apart from everything slow to import."""

from typing import Literal

PresetName = Literal["mnist", "rgbd", "digits", "sample"]
LabelEstimator = Literal["gumbel", "exact"]
Objective = Literal["bound", "classifier"]
Pooling = Literal["geometric", "product"]
Precision = Literal["fp32", "tf32", "bf16"]

# Presets that depend on the data: the paper's settings for data like its own, and ours.
PAPER, RECOMMENDED = "paper", "recommended"
