"""A model of the unbroken-barrier rule: three hosts, Sentinels, one client, whole-host faults.

``store.py`` has the actions of data nodes and Sentinels, ``rule.py`` the rule that releases the
client's replies, and ``search.py`` explores every schedule within bounds and returns the shortest
one in which an acknowledged write is lost. ``python -m models.barrier --help`` describes its use.
"""
