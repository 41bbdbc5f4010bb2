"""An example to copy: the two hosts of a shop, and what differs from the defaults.

    cp inventories/production.py inventories/shop.py               # then edit
    bitrix-cdn check -i inventories/shop.py                       # checks it; connects to nothing
    pyinfra --dry inventories/shop.py deploy.py                    # shows what would change
    pyinfra inventories/shop.py deploy.py

Every setting with its type, default and meaning: docs/settings.md. All mistakes here are reported at
once, each in one line with its number, before any host is connected to.
"""

from bitrix_cdn.settings import groups

bitrix, cdn, edge, balancer, monitoring = groups(
    # The host that the shop runs on. Its files stay where they are.
    bitrix={
        "shop.example.com": {
            # How the CDN host reaches this one: a private address where there is such a network.
            "address": "192.0.2.10",
            # How you reach it, if not by the name above.
            # "ssh_hostname": "203.0.113.10",
            # "ssh_port": 22,
            # Root, or an account that may use sudo without a password.
            "ssh_user": "root",
            # "sudo": True,
            # Your agent and usual keys are tried by default.
            # "ssh_key": "~/.ssh/id_ed25519",
        },
    },
    # The host that takes over the pictures: a bare Debian 12 or 13.
    cdn={
        "cdn.example.com": {
            "address": "192.0.2.20",
            "ssh_user": "root",
        },
    },
    # Further hosts that serve the pictures from their own caches, and take them from the CDN host over its
    # private address; and one that spreads the visitors over them: docs/edges.md.
    # edge={
    #     "edge1.example.com": {"address": "192.0.2.31"},
    #     "edge2.example.com": {"address": "192.0.2.32"},
    # },
    # balancer={"balancer.example.com": {"address": "192.0.2.40"}},
    # Where Prometheus runs, one of the hosts above; by default the CDN host: docs/monitoring.md.
    # monitoring=["cdn.example.com"],
    settings={
        "site": {
            # The document root of the shop, and the account that its PHP runs as. BitrixVM: /home/bitrix/www,
            # and bitrix as user and group (docs/bitrixvm.md).
            "root": "/var/www/bitrix",
            "user": "www-data",
            "group": "www-data",
        },
        "nginx": {
            # The names that the pictures are asked for by; "_" answers to any.
            "server_names": ["cdn.example.com"],
            # Addresses of the proxies in front, if any, such as Cloudflare's: docs/cloudflare.md.
            # "proxies": ["192.0.2.0/24"],
        },
        "tls": {
            # "acme": Debian's certbot gets a certificate for the names above; they must lead to this host.
            # "files": you keep "certificate" and "key" on the host. "off": HTTP only.
            "mode": "off",
            # "acme_email": "admin@example.com",
        },
        "redis": {
            "cache_maxmemory": "512mb",
        },
        "converter": {
            "encoding": {
                # The smallest picture whose structural similarity to the original is at least this.
                "policy": "ssim",
                "ssim_target": 0.95,
            },
            # "workers": {"count": 2},  # by default one for each core
        },
        "monitoring": {
            "prometheus": {
                # Samples go when they are that old, or take that much of the disk.
                "retention_days": 30,
                "retention_size": "4gb",
            },
            "exporters": {
                # What is asked for as a visitor does, besides a picture of the monitoring's own: an original
                # of the shop's, and a page.
                # "probe_pictures": ["/upload/iblock/1a2/logo.png"],
                # "probe_site": "https://shop.example.com/",
            },
        },
        # What is on your hosts beside what the deploy brings there, for `bitrix-cdn drift`: docs/drift.md.
        # "drift": {"accounts": ["deploy"], "ports": ["25/tcp"]},
        # Backups, each day: docs/backup.md.
        # "backup": {
        #     "repository": "sftp:backups@vault.example.com:/srv/backups",
        #     "sftp_host_key": "ssh-ed25519 AAAA...",
        #     "password": "file:~/.config/bitrix-cdn-backup-password",
        # },
        "sshd": {
            # Passwords stay refused, unless you log in with one yourself.
            "password_authentication": False,
        },
    },
)
