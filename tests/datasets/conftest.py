"""Drawings for the tests: the art of the unscored splits."""

import pytest

from ovtool.datasets import collage_files


@pytest.fixture(scope="session")
def drawings():
    """Every noun's drawings as the scene law takes them."""
    return collage_files.drawings("demo")
