"""Brings the hosts of an inventory to the state of this tree, batch by batch, without interrupting visitors.

    bitrix-cdn rollout start [--batch N] [--canary HOST] [--watch SECONDS]

A host that can be drained is taken out of the balancer first. What is brought to it is tested on it, with a
real picture, before visitors come to it again, and then its errors are watched. The first failure ends the
rollout: that batch gets back what it had, the rest is not touched. A run may be cut short at any moment and
started again.
"""
