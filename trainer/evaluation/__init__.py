"""How well a classifier does, given each subset of the modalities."""
