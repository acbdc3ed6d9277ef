"""An address that may carry a password is known, in whatever form, and a path with an @ is none."""

from __future__ import annotations

import pickle

import pytest

from hyperlock.addresses import carries_secret, withheld
from hyperlock.errors import ConfigError, HyperLockError

CARRY = [
    "postgresql://u:hunter2@h/d",
    "postgresql://u:hun/ter2@h/d",
    "postgresql://u:hun@ter2@h/d",
    "postgresql://u:hun ter2@h/d",
    "postgresql+psycopg://u:hun%40ter2@h/d",
    "postgresql://u%3Ahunter2%40h/d",
    "POSTGRESQL://U:HUNTER2@H/D",
    r"postgresql\://u:hunter2@h/d",
    "postgresql://${oc.env:NAME}:hunter2@h/d",
    "postgresql://:hunter2@h/d",
    "http://hunter2@h",
    "https://hunter2:@h:5000/",
    "https://h/?token=hunter2",
    "https://h?hunter2",
    "sqlite:///x.db?password=hunter2",
    "sqlite://u:hunter2@/x.db",
    "jdbc:postgresql://h/d?password=hunter2",
    "tracking.uri='http://hunter2@h'",
    "+model.config={uri:'http://hunter2@h'}",
    "hydra.searchpath=[file:///a,http://hunter2@h/b]",
    "s3://key:hunter2@bucket/folder",
]
NONE = [
    "sqlite:////home/me@work/x.db",
    "sqlite:///me@work.db",
    "sqlite:////home/a:b@c/x.db",
    r"sqlite:///C:\me@work\x.db",
    "sqlite://",
    "file:///home/me@work/runs",
    "http://127.0.0.1:5000",
    "https://[::1]:5000/a%40b",
    "postgresql://h:5432/d",
    "postgresql://${oc.env:NAME}:${oc.env:PASSWORD}@h/d",
    "${oc.env:STORE}",
    "databricks://profile",
    "tags=[me@home.org]",
    "/data/what?/mine@home.npz",
]


@pytest.mark.parametrize("text", CARRY)
def test_what_may_be_a_password_is_known(text: str) -> None:
    assert carries_secret(text)


@pytest.mark.parametrize("text", NONE)
def test_what_is_none_is_let_pass(text: str) -> None:
    assert not carries_secret(text)


@pytest.mark.parametrize(
    "text",
    ["u:hunter2@h/d", "hunter2@h", "u%3Ahunter2%40h", "h/d?password=hunter2", "./x?t=hunter2"],
)
def test_where_an_address_is_due_it_needs_no_scheme(text: str) -> None:
    assert carries_secret(text, "tracking.uri") and carries_secret(f"'{text}'", "x.storage")
    assert not carries_secret(text, "task_name")


@pytest.mark.parametrize(
    "path",
    ["./me@work", "/me@work", "~/me@work", "file:/me@work", "sqlite:me@work", "runs", "null"],
)
def test_a_path_is_none_where_an_address_is_due_either(path: str) -> None:
    assert not carries_secret(path, "tracking.uri")


@pytest.mark.parametrize("text", [text for text in CARRY if "${" not in text and "\\" not in text])
def test_no_error_shows_one(text: str) -> None:
    errors = [
        HyperLockError(f"cannot open {text} (refused)"),
        ConfigError("tracking.uri", text, f"{text} cannot be opened", hint=text),
    ]
    for error in [*errors, *pickle.loads(pickle.dumps(errors))]:
        assert "hun" not in str(error).lower() and "(not shown)" in str(error)
    assert str(errors[0]).startswith("cannot open ")


def test_a_text_without_one_is_left_as_it_is() -> None:
    text = "http://h/x failed\nsqlite:////home/me@work/x.db did not"
    assert withheld(text) == text
    assert withheld("http://t@h failed\nhere") == "(not shown) failed\nhere"
