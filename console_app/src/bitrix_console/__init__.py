"""The control centre: how the hosts are, which alerts fire and what to do about them, and who did what.

It acts through the same library as the command `bitrix-cdn`, and runs on the operator's machine, on loopback.
"""
