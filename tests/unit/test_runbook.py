"""The runbook has a section for every check and alert."""

import re
from pathlib import Path

from feedsvc.operations.health.checks import CHECKS, checks_of
from feedsvc.operations.health.repairs import REPAIRS
from feedsvc.settings import Health

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


def sections() -> dict[str, str]:
    """Each section by its anchor, as GitHub makes it of the heading."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    names = [re.sub(r"[^a-z0-9 _-]", "", name.lower()).replace(" ", "-") for name in parts[::2]]
    return dict(zip(names, parts[1::2], strict=True))


def test_every_check_has_its_section() -> None:
    http = Health.model_validate({"http": {"billing": {"url": "http://127.0.0.1/"}}})
    named = {f"health-{check.section}" for check in checks_of(http)}
    assert named == {name for name in sections() if name.startswith("health-")}
    assert len(checks_of(http)) == len(CHECKS) + 1


def test_every_section_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    for name, text in sections().items():
        if name.startswith("health-"):
            for part in (
                "**Means** ",
                "**Look at**",
                " **do** " if "and **do**" in text else "**Do** ",
            ):
                assert part in text, (name, part)


def test_every_repair_is_described() -> None:
    for repair in REPAIRS:
        assert f"| `{repair.name}` |" in sections()["repairs"]


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK.read_text()):
        file, _, anchor = target.partition("#")
        assert not file or (RUNBOOK.parent / file).is_file(), target
        assert not anchor or file or anchor in sections(), target
