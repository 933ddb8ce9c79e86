"""docs/dataset-yaml.md says what the code says. Write it anew after a field changed:

HSAE_ACCEPT_FIELDS=1 python -m pytest hsae_dagster_tests/dataset/test_field_reference.py
"""

import os
import re

import pytest
from pydantic import BaseModel

from hsae_dagster.dataset import sections as saes
from hsae_dagster.dataset import spec
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.dataset.field_reference import field_reference

PAGE = CHECKOUT / "docs" / "dataset-yaml.md"
COMMAND = "HSAE_ACCEPT_FIELDS=1 python -m pytest hsae_dagster_tests/dataset/test_field_reference.py"
SECTIONS = [
    model
    for module in (spec, saes)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel)
]
FIELDS = [(model, name) for model in SECTIONS for name in model.model_fields]


def test_the_page_is_what_the_code_says() -> None:
    if os.environ.get("HSAE_ACCEPT_FIELDS"):
        PAGE.write_text(field_reference(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == field_reference(), f"fields changed; write the page anew: {COMMAND}"


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_has_a_meaning_a_type_and_a_default_in_words(model: type[BaseModel], name: str) -> None:
    rows = re.findall(
        rf"^\| `(?:\w+(?:\[\])?\.)*{name}` \| (.+?) \| (.+?) \| (.+) \|$", field_reference(), re.MULTILINE
    )
    assert rows
    for kind, default, meaning in rows:
        assert not re.search(r"<class|typing\.|NoneType|PydanticUndefined", kind + default)
        assert len(meaning) > 10


def test_fields_limits_and_repeated_sections_are_told() -> None:
    page = field_reference()
    assert "| `columns.label` | text | required |" in page
    assert "| `saes[].k` | whole number, at least 1 |" in page
    assert "whole number, 8 to 8192" in page
    assert "The same fields as `embedding.server`." in page
