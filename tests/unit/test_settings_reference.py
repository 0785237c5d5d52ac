"""docs/settings.md: generated, and with a description of every setting."""

from pydantic import BaseModel

from docs.settings_reference import reference
from feedsvc.settings import Settings
from tests.support.service import REPOSITORY


def test_the_page_is_what_make_docs_would_write() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == reference()


def test_every_setting_has_its_row() -> None:
    page = reference()
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        for name, setting in field.annotation.model_fields.items():
            is_section = isinstance(setting.get_default(), BaseModel) or name == "http"
            line = f"## {section}.{name}" if is_section else f"| `{section}.{name}` | "
            assert line in page
