"""The data set's published facts, and an index of all that they name."""

import pytest

from pipeline.datasets.washington import Facts, load_facts
from pipeline.datasets.washington_index import Index, index_names
from tests.support.washington import official_names


@pytest.fixture(scope="session")
def facts() -> Facts:
    return load_facts()


@pytest.fixture(scope="session")
def official(facts: Facts) -> Index:
    return index_names(official_names(facts))
