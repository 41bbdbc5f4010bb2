"""What the applications with pages share: accounts, sessions, roles, audit log, languages, layout.

An application makes a :class:`~web_kit.kit.Kit`, adds routes that say what they need
(:func:`web_kit.access.needs`), and writes templates that extend `layout.html.j2`.
"""
