"""The boundary of each durability, measured: ``make durability-matrix`` and ``chaos-matrix``.

Steps of one mode share a deployment, which is in sync before each of them. A step writes tasks as
fast as it can through the APIs during one fault, and then counts which of the acknowledged ones the
surviving master holds.
"""
