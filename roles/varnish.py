"""Varnish, which keeps the originals and their variants."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import apt

from extensions.files import rendered, tree
from extensions.services import running
from roles.nginx import accepts
from settings import Settings

DROP_IN = "/etc/systemd/system/varnish.service.d/bitrix-cdn.conf"
VCL = "/etc/varnish/default.vcl"


@deploy("Varnish")
def varnish(settings: Settings) -> None:
    apt.packages(name="Install Varnish", packages=["varnish"], no_recommends=True)
    files = {file.path: file for file in rendered("varnish", settings=settings, accepts=accepts)}
    tree(name="Write the unit's addresses and memory", files=[files[DROP_IN]], root="/etc/systemd")
    tree(
        name="Write the VCL, if Varnish agrees",
        files=[files[VCL]],
        root="/etc/varnish",
        # It prints the program that it made of the VCL, or what is wrong with it, on the same stream.
        check=f'said=$(umask 022; varnishd -C -f {VCL} 2>&1) || {{ echo "$said" | tail -n 20 >&2; false; }}',
    )
    running(
        name="Run Varnish",
        unit="varnish.service",
        start=[DROP_IN],
        reload=[VCL],
        ready=f"varnishadm -T 127.0.0.1:{settings.varnish.console_port} -S /etc/varnish/secret ping",
    )
