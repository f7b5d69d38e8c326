"""Text in overrides comes back as it was, whatever characters a path has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.config.composition import compose
from actshift.config.overrides import override

AWKWARD = [
    "it's",
    "a b",
    "50%job",
    "[x]",
    "$(touch x)",
    "${oc.env:HOME}",
    "a\\b",
    "ends\\",
    "q\\'uote",
    "#hash",
    "a=b,c",
    '"double"',
    "ünïcode",
    "{brace}",
    "~tilde",
    "\\${x}",
    "'",
    "''",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_folders(text: str) -> None:
    assert compose([override("results", f"/tmp/{text}")]).results == f"/tmp/{text}"


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab '\"\\${}[](),=%~#:.é/"), max_size=12))
def test_any_text(text: str) -> None:
    assert compose([override("results", f"r{text}")]).results == f"r{text}"
