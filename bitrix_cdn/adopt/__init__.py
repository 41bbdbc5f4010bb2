"""Moves a live shop's pictures to the CDN host, and back.

    bitrix-cdn adopt [--bandwidth 8M] [--dry-run]
    bitrix-cdn leave [--bandwidth 8M] [--dry-run]

rsync copies the files from host to host; the operator's machine controls it and shows the progress. The
directory below the site's mount is reached through a private bind mount of `upload/`, which shows it
whether or not the CDN's mount covers it. Both commands may be interrupted at any moment and run again.
"""
