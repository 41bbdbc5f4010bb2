"""Goes back to the release of the converter that was current before, or to a named one; in seconds.

bitrix-cdn release back [id]
"""

from pyinfra import host

from roles.agent import agent
from roles.preflight import refuse_if_held, settings_of
from roles.releases import Installed, rolled_back, target_of

settings = settings_of(host)

if "cdn" in host.groups:
    refuse_if_held(settings)
    agent(settings=settings)
    releases = host.get_fact(Installed)
    target = target_of(releases, host.data.get("release") or "", host.name)
    rolled_back(
        name=f"Go back from release {releases.current} to {target}",
        before=releases.current,
        release=target,
        healthy_within_s=settings.releases.healthy_within_s,
    )
