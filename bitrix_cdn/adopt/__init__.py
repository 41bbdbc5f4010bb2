"""Takes a live shop's pictures to the CDN host, and back.

    bitrix-cdn adopt [--bandwidth 8M] [--dry-run]
    bitrix-cdn leave [--bandwidth 8M] [--dry-run]

The bytes go from host to host, by rsync; the operator's machine steers and shows how far it is. The
directory below the site's mount is reached through a private bind mount of `upload/`, which shows it
whether the CDN's mount lies over it or not. Both commands may be cut short at any moment and run again.
"""
