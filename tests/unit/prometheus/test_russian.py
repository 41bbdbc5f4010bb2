"""The alerts in Russian: the same rules, and texts that say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.alerting import rules, settings_with
from tests.kit.tools import needs, said

NAMES = {
    *("Alertmanager", "Prometheus", "PHP", "Redis", "Varnish", "WebP", "nginx", "systemd", "AOF", "CDN"),
    *("JPEG", "PNG", "TLS", "Edge", "edge", "inode", "upload", "resize-cache", "resize_cache", "originals"),
    *("host_key", "login", "access", "maxmemory-policy"),
}
"""What is called the same in both languages."""

Rule = dict[str, Any]


def alerts(language: str) -> list[Rule]:
    text = rules(settings_with(language=language), balanced=True)["alerts.yml"]
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def values(text: str) -> set[str]:
    """What a text says of the case at hand."""
    return set(re.findall(r"\$(?:value|labels\.\w+)", text))


def words(text: str) -> set[str]:
    """The words of Latin letters in a text, but for names."""
    found = re.findall(r"[A-Za-z][A-Za-z0-9_-]*", re.sub(r"\{\{.*?\}\}", "", text))
    return {word.rstrip("-") for word in found} - NAMES


PAIRS = list(zip(alerts("en"), alerts("ru"), strict=True))


def test_the_rules_are_the_same() -> None:
    for english, russian in PAIRS:
        assert {**english, "annotations": {}} == {**russian, "annotations": {}}


@pytest.mark.parametrize(
    ("english", "russian"), PAIRS, ids=[f"{rule['alert']}-{number}" for number, (rule, _) in enumerate(PAIRS)]
)
def test_an_alert_says_the_same_in_russian(english: Rule, russian: Rule) -> None:
    ours, theirs = english["annotations"], russian["annotations"]
    assert set(ours) == set(theirs)
    assert theirs["runbook_url"] == ours["runbook_url"].replace("docs/runbooks/", "docs/ru/runbooks/")
    assert values(theirs["summary"]) == values(ours["summary"])
    # 99.9, 14.4 or 3: what was promised, and how much worse it is.
    for number in re.findall(r"\d+(?:\.\d+)? %|\d+(?:\.\d+)? times", ours["summary"] + ours["description"]):
        assert number.split()[0] in theirs["summary"] + theirs["description"]
    for name in ("summary", "description"):
        assert words(theirs[name]) == set()
        assert re.search("[а-я]", theirs[name])
        assert not re.search("[а-яА-Я]", ours[name])
    # Whole sentences.
    assert re.fullmatch(r"[А-ЯA-Z/].*\.", theirs["description"])


AMOUNTS = {
    "MountFull": (200_000_000, "На CDN-сервере осталось только 190.7 МиБ;  оставляет новые картинки у себя"),
    "EvictionCannotFree": (512, "Вытеснению на  не хватает 512Б, а удалять больше нечего"),
    "CertificateExpiring": (100_000, "Сертификат  истекает через 1 дн. 3 ч 46 мин 40 с"),
    "DriftCheckStale": (7200.5, "Серверы сравнивались со своим инвентарём 2 ч 0 мин 0 с назад"),
    "PublishingSlow": (0.25, "На  новая картинка превращается в WebP за время до 250 мс; обещано 1 с"),
}
"""What is written of a value by alerts without labels."""


def test_prometheus_writes_amounts_in_russian(tmp_path: Path) -> None:
    needs("promtool", "prometheus")
    texts = {rule["alert"]: rule["annotations"]["summary"] for rule in alerts("ru")}
    rule = [
        {"alert": name, "expr": f"vector({value})", "annotations": {"summary": texts[name]}}
        for name, (value, _) in AMOUNTS.items()
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "amounts", "rules": rule}]}))
    looks = [
        {
            "eval_time": "1m",
            "alertname": name,
            "exp_alerts": [{"exp_annotations": {"summary": text}}],
        }
        for name, (_, text) in AMOUNTS.items()
    ]
    case = {"rule_files": ["rules.yml"], "tests": [{"interval": "15s", "alert_rule_test": looks}]}
    (tmp_path / "case.yml").write_text(yaml.safe_dump(case))
    assert "SUCCESS" in said("promtool", "test", "rules", "case.yml", cwd=tmp_path)
