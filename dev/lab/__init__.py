"""Real Debian hosts on one machine: the lab.

Debian trees made by mmdebstrap are booted by systemd-nspawn on overlayfs and joined by
a bridge. `python -m dev.lab --help` lists the commands. What programs use is
:func:`dev.lab.state.load` and :class:`dev.lab.errors.LabError`; everything else serves them.
"""
