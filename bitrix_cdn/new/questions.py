"""The questions of `bitrix-cdn new`, and the check of each answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bitrix_cdn.settings.alerting import EmailSettings, Secret, TelegramSettings
from bitrix_cdn.settings.backup import BackupSettings
from bitrix_cdn.settings.inventory import placeholder, unreachable
from bitrix_cdn.settings.model import HostEntry, NginxSettings, SiteSettings, TlsSettings
from bitrix_cdn.settings.types import Section

Answers = dict[str, str]
"""Each as it was typed; empty: none."""


@dataclass(frozen=True)
class Question:
    """One thing that the inventory needs."""

    key: str
    """Its name in a file of answers."""
    text: str
    """What is asked, in English; `russian.py` has the others."""
    default: str | Callable[[Answers], str] | None = ""
    """What it is without an answer; None: it must be answered."""
    check: Callable[[str], object] = str
    """Raises ValueError, with what is allowed, for what it can't be."""
    when: Callable[[Answers], object] = lambda answers: True
    """Whether it is asked."""

    def usual(self, answers: Answers) -> str | None:
        """What it is without an answer."""
        return self.default(answers) if callable(self.default) else self.default

    def fault(self, answer: str) -> str:
        """What is wrong with an answer, in words; empty: nothing."""
        if not answer:
            return "an answer is needed" if self.default is None else ""
        try:
            self.check(answer)
        except ValidationError as error:
            # As the settings say it themselves.
            return error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        except ValueError as error:
            return str(error)
        return ""


def words(text: str) -> list[str]:
    """What is separated by commas or spaces."""
    return re.split(r"[,\s]+", text.strip()) if text.strip() else []


def _name(text: str) -> None:
    if fault := unreachable(text, loopback=False):
        raise ValueError(fault)


def _names(text: str) -> None:
    NginxSettings.model_validate({"server_names": words(text)})
    if fault := next(filter(None, map(placeholder, words(text))), ""):
        raise ValueError(fault)


def _one_of(*allowed: str) -> Callable[[str], object]:
    def check(text: str) -> None:
        if text not in allowed:
            raise ValueError(f"{', '.join(allowed)} is allowed")

    return check


def _field(section: type[Section] | type[HostEntry], field: str, **others: Any) -> Callable[[str], object]:
    """Lets a setting's section validate it."""
    return lambda text: section.model_validate({field: text, **others})


def _port(text: str) -> None:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("a port is allowed: 1 to 65535")


def _chats(text: str) -> None:
    if not all(re.fullmatch(r"-?\d+", one) for one in words(text)):
        raise ValueError("numbers of chats are allowed, such as -1001234567890")


_TO = {"to": ["a@example.com"], "sender": "b@example.com", "smarthost": "c:25"}


def _login(text: str) -> object:
    return HostEntry.model_validate({"address": "x", "ssh_user": text, "sudo": True})


QUESTIONS = (
    Question("site_host", "The shop's host, by the name that you log in to", default=None, check=_name),
    Question(
        "site_address",
        "Its address as the CDN host reaches it",
        default=lambda answers: answers["site_host"],
        check=_name,
    ),
    Question("site_user", "Your account there: root, or one with sudo", default="root", check=_login),
    Question("site_port", "Port of its SSH server", default="22", check=_port),
    Question("cdn_host", "The CDN host: bare Debian 12 or 13", default=None, check=_name),
    Question(
        "cdn_address",
        "Its address as the shop's host reaches it",
        default=lambda answers: answers["cdn_host"],
        check=_name,
    ),
    Question("cdn_user", "Your account there", default="root", check=_login),
    Question("cdn_port", "Port of its SSH server", default="22", check=_port),
    Question(
        "root", "The shop's document root", default="/var/www/bitrix", check=_field(SiteSettings, "root")
    ),
    Question(
        "php_user", "The account that its PHP runs as", default="www-data", check=_field(SiteSettings, "user")
    ),
    Question(
        "php_group",
        "That account's group",
        default=lambda answers: answers["php_user"],
        check=_field(SiteSettings, "group"),
    ),
    Question(
        "names",
        "The names that pictures are asked for by, with commas",
        default=lambda answers: answers["cdn_host"],
        check=_names,
    ),
    Question(
        "tls",
        "HTTPS: acme (Let's Encrypt), files (your certificate), self-signed, off",
        default="acme",
        check=_one_of("acme", "files", "self-signed", "off"),
    ),
    Question(
        "acme_email",
        "E-mail address for failed renewals; empty: none",
        default="",
        check=_field(TlsSettings, "acme_email"),
        when=lambda answers: answers["tls"] == "acme",
    ),
    Question(
        "certificate",
        "The certificate with its chain, on the CDN host",
        default=None,
        check=_field(TlsSettings, "certificate", mode="files", key="/x"),
        when=lambda answers: answers["tls"] == "files",
    ),
    Question(
        "key",
        "Its private key, on the CDN host",
        default=None,
        check=_field(TlsSettings, "key", mode="files", certificate="/x"),
        when=lambda answers: answers["tls"] == "files",
    ),
    Question("language", "Language of alerts: en, ru", default="en", check=_one_of("en", "ru")),
    Question(
        "email",
        "E-mail addresses for alerts, separated by commas; empty: none",
        default="",
        check=lambda text: EmailSettings.model_validate({**_TO, "to": words(text)}),
    ),
    Question(
        "sender",
        "The address that they come from",
        default=None,
        check=_field(EmailSettings, "sender"),
        when=lambda answers: answers["email"],
    ),
    Question(
        "smarthost",
        "The mail server, with its port: smtp.example.com:587",
        default=None,
        check=_field(EmailSettings, "smarthost"),
        when=lambda answers: answers["email"],
    ),
    Question(
        "smtp_user",
        "Account on that server; empty: none is needed",
        default="",
        check=str,
        when=lambda answers: answers["email"],
    ),
    Question(
        "smtp_password",
        "Where its password is: file:PATH or env:NAME on this machine",
        default=None,
        check=_field(EmailSettings, "password", username="x"),
        when=lambda answers: answers.get("smtp_user"),
    ),
    Question(
        "telegram",
        "Telegram chats that get alerts, as numbers with commas; empty: none",
        default="",
        check=_chats,
    ),
    Question(
        "telegram_token",
        "Where the bot's token is: file:PATH or env:NAME on this machine",
        default=None,
        check=_field(TelegramSettings, "token", chats=[1]),
        when=lambda answers: answers["telegram"],
    ),
    Question(
        "backup",
        "Backups: /path, sftp:user@host:/path; empty: none",
        default="",
        check=lambda text: type(_backup(text)),
    ),
    Question(
        "backup_host_key",
        "That server's public host key: ssh-ed25519 AAAA...",
        default=None,
        check=lambda text: _backup("sftp:u@h:/p", text),
        when=lambda answers: answers["backup"].startswith("sftp:"),
    ),
    Question(
        "backup_password",
        "Where their password is: file:PATH or env:NAME on this machine",
        default="file:~/.config/bitrix-cdn-backup-password",
        check=lambda text: _backup("/p", "", text),
        when=lambda answers: answers["backup"],
    ),
)


def _backup(repository: str, key: str = "", opened_by: Secret = "env:X") -> BackupSettings:
    key = key or ("ssh-ed25519 AAAA" if repository.startswith("sftp:") else "")
    return BackupSettings.model_validate(
        {"repository": repository, "sftp_host_key": key, "password": opened_by}
    )


def answered(given: Mapping[str, str], ask: Callable[[Question, str | None], str]) -> Answers:
    """Goes through the questions.

    :param given: answers that are there already.
    :param ask: asks one that isn't, until the answer can be.
    """
    answers: Answers = {}
    for question in QUESTIONS:
        if not question.when(answers):
            answers[question.key] = ""
        elif question.key in given:
            answers[question.key] = given[question.key].strip()
        else:
            answers[question.key] = ask(question, question.usual(answers)).strip()
    return answers
