"""Certificates: the content of one, and self-signed ones made on the host."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Generator, Iterable, Sequence

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation


class CertificateNames(FactBase[Iterable[str]]):
    """The names and addresses that a certificate is for; none: there is no such certificate."""

    default = list

    def command(self, path: str) -> str:
        return f"openssl x509 -noout -ext subjectAltName -in {shlex.quote(path)} 2>/dev/null; true"

    def process(self, output: Iterable[str]) -> Iterable[str]:
        entries = ",".join(line for line in output if ":" in line and "X509v3" not in line).split(",")
        return [entry.partition(":")[2].strip() for entry in entries if ":" in entry]


@operation()
def self_signed_certificate(
    certificate: str, key: str, names: Sequence[str], address: str, *, placeholder: bool = False
) -> Generator[StringCommand, None, None]:
    """Makes a certificate that no browser trusts, with a key that never leaves the host, where there is none
    or one for others.

    + certificate: its path
    + key: the path of its private key, in the same directory
    + names: what it is for
    + address: the host's own, which it is for as well
    + placeholder: any certificate will do until an authority's takes its place
    """
    present = set(host.get_fact(CertificateNames, path=certificate))
    if present == {*names, address} or (present and placeholder):
        host.noop(f"{certificate} exists")
        return
    entries = [f"DNS:{name}" for name in names]
    try:
        entries.append(f"IP:{ipaddress.ip_address(address)}")
    except ValueError:
        entries.append(f"DNS:{address}")
    c, k = shlex.quote(certificate), shlex.quote(key)
    subject, alternatives = shlex.quote(f"/CN={names[0]}"), shlex.quote(f"subjectAltName={','.join(entries)}")
    yield StringCommand(
        f"set -e; mkdir -p $(dirname {c}); umask 077; "
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 "
        f"-subj {subject} -addext {alternatives} "
        f"-keyout {k} -out {c} 2>/dev/null; chmod 644 {c}"
    )


class Joined(FactBase[bool]):
    """Whether a file holds a certificate and its key as they are now, for root's eyes only."""

    default = bool

    def command(self, certificate: str, key: str, path: str) -> str:
        c, k, p = map(shlex.quote, (certificate, key, path))
        return f"cat {c} {k} 2>/dev/null | cmp -s - {p} && stat -c '%a %U' {p}; true"

    def process(self, output: Iterable[str]) -> bool:
        return list(output) == ["600 root"]


@operation()
def joined_certificate(certificate: str, key: str, path: str) -> Generator[StringCommand, None, None]:
    """Writes a certificate and its key into one file, and again when either has changed.

    + certificate: the certificate with its chain
    + key: its private key
    + path: the file of both
    """
    if host.get_fact(Joined, certificate=certificate, key=key, path=path):
        host.noop(f"{path} holds them as they are")
        return
    c, k, p, new = map(shlex.quote, (certificate, key, path, f"{path}.new"))
    yield StringCommand(
        f"set -e; mkdir -p $(dirname {p}); umask 077; cat {c} {k} > {new} || "
        f"{{ rm -f {new}; exit 1; }}; mv -f {new} {p}"
    )
