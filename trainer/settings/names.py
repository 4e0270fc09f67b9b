"""The words that settings and command-line options share, kept apart from everything slow to import."""

from typing import Literal

PresetName = Literal["mnist", "rgbd", "digits", "sample"]
LabelEstimator = Literal["gumbel", "exact"]
Objective = Literal["bound", "classifier"]
Pooling = Literal["geometric", "product"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]

# Presets that depend on the data: the paper's settings for data like its own, and ours.
PAPER, RECOMMENDED = "paper", "recommended"

# The fields of Settings and of its CoTraining: a run with others was written by a newer version (a test holds them).
SETTINGS_FIELDS = {
    "model", "data", "digest", "split", "modalities", "labels", "seed", "alpha", "beta", "label_estimator",
    "temperature", "prior", "pooling", "joint_encoder", "objective", "epochs", "batch_size", "labelled_batch_size",
    "window", "learning_rate", "precision", "fused", "iterations", "samples", "answers", "held_out", "propagation",
    "neighbours", "mean_alpha", "partial_alpha", "consistency", "smoothness", "partial_smoothness", "radius",
    "information", "agreement", "onset", "averaging", "schedule", "networks", "cotraining",
}  # fmt: skip
COTRAINING_FIELDS = {
    "k_best", "pool", "cost", "scale", "candidates", "granularity", "passes", "least_steps",
}  # fmt: skip
