"""Stages are tested for what they find; pictures have tests of their own."""

import pytest

from jaxalign.runtime.plots import style

# One grey pixel.
PIXEL = bytes.fromhex(
  "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
  "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
  """Drawing takes longer than what is drawn: 1.2 s of a smoke run."""
  if "pictures" not in request.keywords:
    monkeypatch.setattr(style, "to_png", lambda drawn: PIXEL)
