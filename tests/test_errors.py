"""Errors that a user can mend say what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.errors import InputError, MissingPackageError, require


@pytest.mark.parametrize(
    ("where", "fix", "message"),
    [
        (None, None, "it is wrong"),
        ("line 3", None, "line 3: it is wrong"),
        (Path("a") / "b", None, "a/b: it is wrong"),
        (None, "do this", "it is wrong\n  fix: do this"),
        ("line 3", "do this", "line 3: it is wrong\n  fix: do this"),
    ],
)
def test_a_message_has_its_parts(where: str | Path | None, fix: str | None, message: str) -> None:
    error = InputError("it is wrong", where=where, fix=fix)
    assert str(error) == message
    assert (error.what, error.where, error.fix) == ("it is wrong", where, fix)
    assert isinstance(error, ValueError)


def test_a_package_that_is_there_is_imported() -> None:
    assert require("json.decoder", extra="hub", purpose="this test").JSONDecoder


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(MissingPackageError) as caught:
        require("surely_not_here.inner", extra="hub", purpose="reading the hub")
    assert str(caught.value) == (
        "reading the hub needs the package 'surely_not_here', which is not installed\n"
        "  fix: pip install 'puna[hub]'"
    )
    assert isinstance(caught.value, InputError)
