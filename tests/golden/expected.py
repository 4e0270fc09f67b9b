"""What may differ between the recordings of two checkouts: the tables to edit when something is renamed on purpose."""

# Old name -> new name of a key. A dotted name says which key the renamed one stands directly under; a plain name is
# renamed wherever it stands. Commands give a setting by the name that the checkout knows, and both recordings use the
# new name.
RENAMED = {
    "label": "label_estimator",  # setting: how an unobserved label is replaced
    "cotraining.additions": "cotraining.k_best",  # setting: examples that a view labels, a class and a round
    "means": "completion",  # of a score: what stands in for the missing modalities
}

# Keys, attributes, columns and files that the later checkout may have and the earlier one may lack.
ADDED = {
    "preset",  # HDF5 attribute of a shard: the preset that fits it
    "format",  # of settings.json: the version of a run's folder
    "reference",  # of a run as JSON: what everyday classifiers reach on the same labels
    "reference.json",
    "runs in the stack",  # of provenance.json
}

# Keys that say when, where and with which versions something was made, not what it is.
VOLATILE = {
    "begun",
    "command",
    "computed on",
    "device",
    "host",
    "made",
    "mmssl",
    "numpy",
    "runs computed in",
    "runs trained on",
    "scikit-learn",
    "seconds of the last sitting",
    "sha256",  # of an image store's index: it covers the versions in it
    "torch",
    "torchvision",
    "versions",
}
