"""What a reader made of a source: what was read, what was left out and why, what is at fault."""

from __future__ import annotations

from trunkline.errors import DataError
from trunkline.terminal import printable

_SHOWN = 3  # places named for each reason


class _Places:
    """How often something was found, and where first."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, where: str) -> None:
        self.count += 1
        if len(self._first) < _SHOWN and where not in self._first:
            self._first.append(where)

    def __str__(self) -> str:
        return ", ".join([*self._first, "..."] if self.count > _SHOWN else self._first)


class Notes:
    """Counts of what happened while a source was read.

    Args:
        source: What was read.

    Attributes:
        texts, spans: How many were read.
        facts: What was found out about the source's form.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.texts = self.spans = 0
        self.facts: list[str] = []
        self._notes: dict[str, _Places] = {}
        self._faults: dict[str, _Places] = {}
        self._seen: dict[str, int] = {}

    def add(self, reason: str, where: str) -> None:
        """Notes something that a person should know.

        Args:
            reason: E.g. `texts skipped, which the annotator rejected`; a mend may follow after `;`.
            where: The place.
        """
        # The source stands at the beginning of the line: what remains is the place in it.
        place = where.removeprefix(self.source).lstrip(": ")
        place = f"line {place}" if place[:1].isdigit() else place
        self._notes.setdefault(reason, _Places()).add(place or where)

    def fact(self, fact: str) -> None:
        """Notes something about the form of the source, e.g. `no header`."""
        self.facts.append(fact)

    def fault(self, reason: str, where: str) -> None:
        """Notes something for which the source is refused once all of it was read."""
        self._faults.setdefault(reason, _Places()).add(where)

    def read(self, text: str, spans: tuple[object, ...], where: str) -> None:
        """Counts a text and its spans; notes a text that was read before with other spans."""
        self.texts += 1
        self.spans += len(spans)
        found = hash(spans)
        if self._seen.setdefault(text, found) != found:
            self.add("texts that stand there again with other spans, all kept", where)

    def check(self) -> None:
        """Refuses a source with faults.

        Raises:
            DataError: Says how many there are of the first kind, and where.
        """
        for reason, places in self._faults.items():
            raise DataError(self.source, _line(reason, places))

    def reasons(self) -> list[str]:
        """Returns what was noted: how often, and the first places."""
        return [_line(*note) for note in self._notes.items()]

    def lines(self) -> list[str]:
        """Returns what was noted as lines that name the source."""
        return [printable(f"{self.source}: {reason}") for reason in self.reasons()]


def _line(reason: str, places: _Places) -> str:
    what, semicolon, mend = reason.partition(";")
    return f"{what}: {places.count:,} ({places}){semicolon}{mend}"
