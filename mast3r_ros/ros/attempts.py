"""Lets a service wait for the outcome of the next localization attempt."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: whether it localized, and the pose or the reason in words."""

    success: bool
    message: str


@dataclass(frozen=True, eq=False)
class _Ticket:
    asked_ns: int
    outcome: Future[Outcome] = field(default_factory=Future)


class Attempts:
    """Requests for the outcome of an attempt; only images that arrive after a request answer it. Thread-safe."""

    def __init__(self) -> None:
        self._tickets: list[_Ticket] = []
        self._lock = threading.Lock()

    @property
    def asked(self) -> bool:
        """Whether somebody waits."""
        with self._lock:
            return bool(self._tickets)

    def due(self, received_ns: int) -> bool:
        """Whether an attempt on an image that arrived at that time would answer somebody."""
        with self._lock:
            return any(ticket.asked_ns <= received_ns for ticket in self._tickets)

    def ask(self, asked_ns: int) -> Future[Outcome]:
        """A future that gets the outcome of the first attempt on an image that arrives from now on."""
        ticket = _Ticket(asked_ns)
        with self._lock:
            self._tickets.append(ticket)
        return ticket.outcome

    def give_up(self, outcome: Future[Outcome]) -> None:
        """Nobody waits for this future any more."""
        with self._lock:
            self._tickets = [ticket for ticket in self._tickets if ticket.outcome is not outcome]

    def answer(self, received_ns: int, outcome: Outcome) -> bool:
        """An attempt on an image that arrived at that time has ended: tell who asked before; whether anyone did."""
        with self._lock:
            due = [ticket for ticket in self._tickets if ticket.asked_ns <= received_ns]
            self._tickets = [ticket for ticket in self._tickets if ticket.asked_ns > received_ns]
        for ticket in due:
            ticket.outcome.set_result(outcome)
        return bool(due)

    def answer_all(self, outcome: Outcome) -> None:
        """No more attempts will be made."""
        with self._lock:
            due, self._tickets = self._tickets, []
        for ticket in due:
            ticket.outcome.set_result(outcome)
