"""The exporters, each in a sandbox and open to the monitoring hosts only."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import apt, systemd

from bitrix_cdn.engine.files import File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings import Settings
from host_agent.redis import INSTANCES, password_file
from roles import agent
from roles.preflight import distribution, machine
from roles.topology import BEHIND, GATED, askers, bracketed, listening_address, reloads

MTAIL = "/etc/mtail/edge.mtail"
LOG = "/var/log/nginx/access.log"
BLACKBOX = "/etc/prometheus/blackbox.yml"
REDIS_UNIT = "/etc/systemd/system/prometheus-redis-exporter@.service"
NODE_UNIT = "/etc/systemd/system/prometheus-node-exporter.service"
MAKER = f"{agent.LIBRARY}/host_agent/observe/picture.py"
PROBE = "edge-probe-picture"
PROBES = "bitrix-cdn"
"""The directory in `resize_cache` that the picture to ask for is in."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Of the answers' durations, in seconds."""

# Not real disks, or another host's. Without escapes: systemd would take them for its own.
FILE_SYSTEMS_EXCLUDED = (
    "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fuse([.].*)?|fusectl|hugetlbfs|iso9660|"
    "mqueue|nfs[d4]?|nsfs|proc|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$$"
)
MOUNT_POINTS_EXCLUDED = "^/(dev|proc|run|sys|{export}|var/lib/docker/.+|var/lib/containers/storage/.+)($$|/)"


METRICS = ("/metrics",)
_OF_PICTURES = ("mtail", "prometheus-nginx-exporter", "prometheus-varnish-exporter")


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.monitoring.exporters
    gate = METRICS if place.among(*GATED) else ()
    ports = [Port(own.node_port, "monitoring", "metrics of the host", gate=gate, job="node")]
    serving = place.among("cdn", "edge")
    if serving:
        ports += [
            Port(own.edge_port, "monitoring", "metrics of what visitors get", gate=gate, job="edge"),
            Port(own.nginx_port, "monitoring", "metrics of nginx", gate=gate, job="nginx"),
            Port(own.varnish_port, "monitoring", "metrics of Varnish", gate=gate, job="varnish"),
        ]
    if place.among("cdn"):
        for instance, number in (("cache", own.redis_cache_port), ("queue", own.redis_queue_port)):
            what = f"metrics of the Redis of the {instance}"
            ports.append(Port(number, "monitoring", what, gate=gate, job="redis", labels={"redis": instance}))
    if place.among("monitoring"):
        ports.append(Port(own.blackbox_port, "host", "blackbox exporter", gate=(*METRICS, "/probe")))
    mtail = ("/etc/mtail",) if serving else ()
    packages = [
        *("prometheus-node-exporter", "dbus"),
        *(_OF_PICTURES if serving else ()),
        *(("prometheus-redis-exporter",) if place.among("cdn") else ()),
        *(("prometheus-blackbox-exporter",) if place.among("monitoring") else ()),
    ]
    saved = mtail if place.among("cdn") else ()
    return Footprint(tuple(ports), trees=mtail, saved=saved, packages=tuple(packages))


@deploy("Exporters")
def exporters(settings: Settings) -> None:
    address = BEHIND if GATED & set(host.groups) else listening_address(settings)
    files_of_all = {
        file.path: file
        for file in rendered(
            "exporters",
            settings=settings,
            address=address,
            listen=bracketed(address),
            askers=askers(settings),
            name=visible_name(settings),
            verify=settings.monitoring.exporters.tls_verify and settings.tls.mode in {"files", "acme"},
            buckets=BUCKETS,
            log=LOG,
            maker=MAKER,
            picture=probe_picture(settings),
            file_systems_excluded=FILE_SYSTEMS_EXCLUDED,
            mount_points_excluded=MOUNT_POINTS_EXCLUDED.format(export=settings.sftp.export.lstrip("/")),
            # Debian 12's blackbox exporter says nothing of each probe; Debian 13's has to be told not to.
            modern=machine(settings)["version"] != "12",
            node_exporter=distribution(settings).node_exporter,
        )
    }
    _on_every_host(settings, files_of_all)
    if {"cdn", "edge"} & set(host.groups):
        _where_pictures_are_served(settings, files_of_all)
    if "cdn" in host.groups:
        _of_redis(settings, files_of_all)
        _picture_to_ask_for(files_of_all)
    if "monitoring" in host.groups:
        _on_the_monitoring_host(settings, files_of_all)


def _on_every_host(settings: Settings, written: dict[str, File]) -> None:
    here = distribution(settings)
    units = [drop_in("prometheus-node-exporter")]
    if here.manager == "dnf":
        # What a package of one repository or another brings has no name to rely on.
        units.append(NODE_UNIT)
    # Before the package, which starts the service: it never listens where it shouldn't.
    tree(
        name="Write node_exporter's systemd sandbox",
        files=[written[unit] for unit in units],
        root="/etc/systemd",
    )
    # It asks systemd over the bus.
    packages("Install node_exporter", here, ["prometheus-node-exporter", "dbus"])
    running(
        name="Run node_exporter",
        unit="prometheus-node-exporter.service",
        start=units,
        ready=listens(settings.monitoring.exporters.node_port),
    )


def _where_pictures_are_served(settings: Settings, written: dict[str, File]) -> None:
    ports = settings.monitoring.exporters
    drop_ins = {name: drop_in(name) for name in _OF_PICTURES}
    tree(
        name="Write the systemd sandboxes of mtail, nginx's and Varnish's exporters",
        files=[written[path] for path in drop_ins.values()],
        root="/etc",
    )
    apt.packages(
        name="Install mtail, nginx's and Varnish's exporters", packages=[*_OF_PICTURES], no_recommends=True
    )
    tree(
        name="Write edge.mtail (checked by mtail)",
        files=[written[MTAIL]],
        root="/etc/mtail",
        # It listens even then, and where it runs already its own port is taken.
        check="mtail --compile_only --logtostderr --address 127.0.0.1 --port 0 --progs /etc/mtail",
    )
    running(
        name="Run mtail",
        unit="mtail.service",
        start=[drop_ins["mtail"], MTAIL],
        ready=listens(ports.edge_port),
    )
    running(
        name="Run nginx's exporter",
        unit="prometheus-nginx-exporter.service",
        start=[drop_ins["prometheus-nginx-exporter"]],
        ready=listens(ports.nginx_port),
    )
    running(
        name="Run Varnish's exporter",
        unit="prometheus-varnish-exporter.service",
        start=[drop_ins["prometheus-varnish-exporter"]],
        ready=listens(ports.varnish_port),
    )


def _of_redis(settings: Settings, written: dict[str, File]) -> None:
    ports = settings.monitoring.exporters
    instances = {name: f"/etc/bitrix-cdn/redis-exporter-{name}.env" for name in INSTANCES}
    tree(
        name="Write the Redis exporters' systemd sandbox",
        files=[
            written[path] for path in (REDIS_UNIT, drop_in("prometheus-redis-exporter"), *instances.values())
        ],
        root="/etc",
    )
    apt.packages(
        name="Install the Redis exporter", packages=["prometheus-redis-exporter"], no_recommends=True
    )
    systemd.service(
        name="Stop Debian's own instance of the Redis exporter",
        service="prometheus-redis-exporter.service",
        running=False,
        enabled=False,
    )
    for instance, port in (("cache", ports.redis_cache_port), ("queue", ports.redis_queue_port)):
        running(
            name=f"Run the Redis exporter of the {instance}",
            unit=f"prometheus-redis-exporter@{instance}.service",
            start=[REDIS_UNIT, instances[instance], str(password_file(instance, "exporter"))],
            ready=listens(port),
        )


def _picture_to_ask_for(written: dict[str, File]) -> None:
    units = [f"/etc/systemd/system/{PROBE}.service", f"/etc/systemd/system/{PROBE}.timer"]
    tree(
        name="Write the units that create the probe picture",
        files=[written[path] for path in units],
        root="/",
    )
    running(name="Create the probe picture", unit=f"{PROBE}.timer", start=[*units, MAKER])


def _on_the_monitoring_host(settings: Settings, written: dict[str, File]) -> None:
    unit = drop_in("prometheus-blackbox-exporter")
    tree(name="Write blackbox_exporter's systemd sandbox", files=[written[unit]], root="/etc/systemd")
    apt.packages(
        name="Install blackbox_exporter", packages=["prometheus-blackbox-exporter"], no_recommends=True
    )
    tree(
        name="Write blackbox.yml (checked by blackbox_exporter)",
        files=[written[BLACKBOX]],
        root="/etc/prometheus",
        check=f"prometheus-blackbox-exporter --config.check --config.file={BLACKBOX}",
    )
    running(
        name="Run blackbox_exporter",
        unit="prometheus-blackbox-exporter.service",
        start=[unit],
        reload=[BLACKBOX],
        ready=listens(settings.monitoring.exporters.blackbox_port),
        told=reloads("blackbox_exporter", settings.monitoring.exporters.blackbox_port),
    )


def drop_in(unit: str) -> str:
    """The path of our drop-in for a service of Debian's."""
    return f"/etc/systemd/system/{unit}.service.d/bitrix-cdn.conf"


def listens(port: int) -> str:
    """A command that succeeds when something listens on a port."""
    return f"ss -Hltn sport = :{port} | grep -q ."


def probe_picture(settings: Settings) -> str:
    """The picture that monitoring asks for, on the CDN host."""
    return f"{settings.cdn.resize_cache}/{PROBES}/probe.jpg"


def visible_name(settings: Settings) -> str:
    """The name that visitors ask for pictures by; empty: any."""
    return next((name for name in settings.nginx.server_names if not set(name) & set("_*")), "")
