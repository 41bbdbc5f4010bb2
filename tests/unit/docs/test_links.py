"""The links of README and docs, and those of alerts, lead to something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.alerting import rules, settings_with
from tests.kit.deployment import ROOT
from tests.kit.documented import pages


def anchors(page: Path) -> set[str]:
    """The headings of a page, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def leads_nowhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    return not file.exists() or bool(anchor and file.suffix == ".md" and anchor not in anchors(file))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_to_what_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert not [one for one in targets if "://" not in one and leads_nowhere(page, one)]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_each_alert_leads_to_its_runbook(language: str) -> None:
    text = "\n".join(rules(settings_with(language=language)).values())
    urls = set(re.findall(r'runbook_url: "([^"]+)"', text))
    assert len(urls) > 30
    assert not [url for url in urls if leads_nowhere(ROOT / "README.md", url)]


def test_nothing_leads_to_pages_that_debians_packages_do_not_have() -> None:
    """Prometheus' are below `/classic`, Alertmanager has none."""
    prometheus = re.compile(r"127\.0\.0\.1:9090/(?!classic/|api/|-/|metrics)[a-z]")
    alertmanager = re.compile(r"/#/(?:alerts|silences|status)")
    sources = [*pages(), *(path for path in (ROOT / "templates").rglob("*.j2"))]
    assert not [
        f"{path}: {found[0]}"
        for path in sources
        for pattern in (prometheus, alertmanager)
        if (found := pattern.search(path.read_text()))
    ]
