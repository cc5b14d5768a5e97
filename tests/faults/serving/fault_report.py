"""What became of the calls made under a fault."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

_TOLD = 5  # complaints kept


@dataclass
class FaultReport:
    """Calls made under one fault. Safe to use from several threads.

    Attributes:
        fault: What was done to the server.
        survived: Calls with the right answer, or the status that the fault allows.
        lost: Calls that never got an answer or a status, or were cut off after they were accepted.
        wrong: Calls whose answer differs from the model's own, or with another status.
        notes: What else was seen, by name.
        complaints: The first few calls that were lost or wrong.
    """

    fault: str
    survived: int = 0
    lost: int = 0
    wrong: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def tried(self) -> int:
        """All calls."""
        return self.survived + self.lost + self.wrong

    @property
    def clean(self) -> bool:
        """Whether calls were made, and none was lost or wrong."""
        return self.survived > 0 and not self.lost and not self.wrong

    def survive(self, note: str = "") -> None:
        """Counts a call that went as it may, under a note if there is something to say of it."""
        with self._lock:
            self.survived += 1
            if note:
                self.notes[note] = self.notes.get(note, 0) + 1

    def lose(self, complaint: str) -> None:
        """Counts a call that got no answer."""
        with self._lock:
            self.lost += 1
            self._keep(complaint)

    def fail(self, complaint: str) -> None:
        """Counts a wrong answer or status."""
        with self._lock:
            self.wrong += 1
            self._keep(complaint)

    def check(self, complaint: str) -> None:
        """Counts a wrong call if there is a complaint about it, else one that survived."""
        if complaint:
            self.fail(complaint)
        else:
            self.survive()

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "fault": self.fault,
            "tried": self.tried,
            "survived": self.survived,
            "lost": self.lost,
            "wrong": self.wrong,
            "notes": self.notes,
            "complaints": self.complaints,
        }

    def _keep(self, complaint: str) -> None:
        if len(self.complaints) < _TOLD:
            self.complaints.append(complaint)


def table(reports: list[FaultReport]) -> str:
    """Returns the report as lines of columns."""
    width = max(len(report.fault) for report in reports)
    lines = [f"{'fault':<{width}}   tried survived   lost  wrong"]
    for one in reports:
        counts = f"{one.tried:>8}{one.survived:>9}{one.lost:>7}{one.wrong:>7}"
        notes = ", ".join(f"{name} {value}" for name, value in one.notes.items())
        lines.append(f"{one.fault:<{width}}{counts}   {notes}".rstrip())
        lines += [f"    {complaint}" for complaint in one.complaints]
    return "\n".join(lines)
