"""How good a classifier is for every subset of modalities."""
