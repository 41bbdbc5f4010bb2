"""Brings all hosts of an inventory to the state that its settings describe.

    pyinfra inventories/production.py deploy.py

Which role runs where, and in which order, is all that stands here. One line a role: pyinfra tells
operations apart by the lines that they were called from.
"""

from pyinfra import host

from bitrix_cdn.engine.prefetch import make_plan, prefetch_facts
from roles.acme import acme
from roles.agent import agent, no_former_agent
from roles.alertmanager import alertmanager
from roles.backup import backup
from roles.balancer import balancer
from roles.base import base
from roles.baseline import baseline
from roles.converter import converter
from roles.exporters import exporters
from roles.firewall import firewall
from roles.gate import gate
from roles.grafana import grafana
from roles.lab_site import lab_site
from roles.logs import logs
from roles.mounts import mounts
from roles.nginx import nginx
from roles.originals import originals
from roles.preflight import preflight, settings_of
from roles.prometheus import prometheus
from roles.redis import redis, redis_with_passwords
from roles.sftp import keys, sftp
from roles.sshd import sshd
from roles.varnish import varnish

settings = settings_of(host)
prefetch_facts(host)
preflight(settings)

# The site's host and the CDN host have each other's files; these two and edges are what pictures come from.
mounted = bool({"bitrix", "cdn"} & set(host.groups))
serving = bool({"cdn", "edge"} & set(host.groups))

base(settings=settings)
agent(settings=settings)
baseline(settings=settings)

if mounted:
    keys()

if settings.lab_site.enabled and "bitrix" in host.groups:
    lab_site(settings=settings)

if mounted:
    sftp(settings=settings)

sshd(settings=settings)
firewall(settings=settings)

if "cdn" in host.groups:
    redis(settings=settings)
    converter(settings=settings)

if serving:
    nginx(settings=settings)

if "cdn" in host.groups:
    originals(settings=settings)

if serving:
    varnish(settings=settings)

if "balancer" in host.groups:
    balancer(settings=settings)

if serving or "balancer" in host.groups:
    logs(settings=settings)

if "cdn" in host.groups and settings.tls.mode == "acme":
    acme(settings=settings)

exporters(settings=settings)

if "cdn" in host.groups:
    redis_with_passwords()

if "monitoring" in host.groups:
    alertmanager(settings=settings.monitoring.alertmanager, language=settings.monitoring.language)
    prometheus(settings=settings)

if "monitoring" in host.groups and settings.monitoring.grafana.enabled:
    grafana(settings=settings)

if serving or "monitoring" in host.groups:
    gate(settings=settings)

backup(settings=settings)

# Last: each mount needs the other host's account, and the site must not be moved to a CDN host that
# isn't finished.
if mounted:
    mounts(settings=settings)

no_former_agent()

make_plan(host)
