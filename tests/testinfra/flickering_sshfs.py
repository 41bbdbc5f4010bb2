#!/usr/bin/python3
"""In place of sshfs: a mount that comes and goes, as one does whose ssh ends while it connects."""

import ctypes
import os
import sys
import time

point = sys.argv[sys.argv.index("-F") + 3].encode()
libc = ctypes.CDLL(None)
for _ in range(100):
    connection = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={connection},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc.mount(b"peer:/nowhere", point, b"fuse.sshfs", ctypes.c_ulong(6), options)
    time.sleep(0.003)
    libc.umount2(point, 2)
    os.close(connection)
    time.sleep(0.003)
sys.exit("ssh: Could not resolve hostname")
