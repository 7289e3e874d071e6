"""What the tests of the labs share."""

from pathlib import Path

from convnets import labs

import pytest

ROOT = Path(__file__).parents[2] / "labs"
FOLDERS = labs.folders_in(ROOT)


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch):
    """No test reads or writes the progress of whoever runs it."""
    monkeypatch.setenv("CONVNETS_PROGRESS", "off")
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


@pytest.fixture(scope="session", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    """The folder of one lab."""
    return request.param


@pytest.fixture(scope="session")
def loaded():
    """Every Lab by the name of its folder."""
    return {folder.name: labs.load(folder) for folder in FOLDERS}


@pytest.fixture
def lab(folder, loaded):
    """One Lab."""
    return loaded[folder.name]


@pytest.fixture
def convolution(loaded):
    """The Lab of lab 1, which needs NumPy alone."""
    return loaded["01_convolution"]
