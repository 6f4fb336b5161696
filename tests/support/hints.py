"""A source of hints for tests that hand hints to a listener themselves."""

from __future__ import annotations

from ddq.store.hints import Listener


class NoHints:
    """Delivers nothing.

    Attributes:
        listeners: those that have subscribed.
    """

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """See HintSource.listen."""
        self.listeners.append(listener)
