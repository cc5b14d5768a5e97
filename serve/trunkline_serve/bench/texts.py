"""What the load generator sends: short and medium texts, two in three with questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trunkline import Document, Question
from trunkline.errors import DataError
from trunkline.files import read_edited

# One short sentence, for the unloaded latency.
SHORT = Document("The ferry to Bergen leaves at nine from the old harbour.")

_TEXTS: tuple[tuple[str, ...], ...] = (
    ("Maria Lind joined the orchestra in Vienna in 2011.", "When did she join the orchestra?"),
    ("Rain delayed the final in Leeds by two hours.",),
    (
        "The museum in Basel lent four drawings by Hans Holbein to a gallery in Lyon. They will "
        "return in March.",
        "Who lent the drawings?",
        "When will the drawings return?",
    ),
    ("Toyota and Mazda share a plant in Huntsville.", "Where is the plant?"),
    ("Nobody answered the phone at the embassy.",),
    (
        "After the flood of 1953 the Dutch government built dams and storm barriers along the "
        "coast. The last of them, the Maeslantkering near Rotterdam, was finished in 1997 and "
        "closes by itself when the sea rises three metres above its mean level.",
        "When was the Maeslantkering finished?",
        "Where is the Maeslantkering?",
    ),
    ("Dr. Okafor will speak in Nairobi on Friday.",),
    ("The price of copper fell again.", "What fell?"),
    (
        "Lake Titicaca lies between Bolivia and Peru, 3,800 metres above the sea. Steamships that "
        "were carried up the Andes in pieces have crossed it since 1870.",
        "Which countries share the lake?",
    ),
    ("Two engineers from Siemens repaired the turbine overnight.", "Who repaired the turbine?"),
    ("Lisbon, Porto and Faro were without power for an hour.",),
    (
        "The committee met for the third time on Tuesday. Its chair, Ingrid Solberg, said that the "
        "report would be ready before the summer, but two members from Denmark asked for more "
        "time to study the figures of the last quarter.",
        "Who is the chair of the committee?",
    ),
    ("Please send the samples to the laboratory in Graz.", "Where should the samples go?"),
    ("Chile beat Uruguay on penalties.",),
    (
        "Grace Hopper led the team that wrote one of the first compilers. She retired from the "
        "navy in 1986 as a rear admiral.",
        "When did Grace Hopper retire?",
        "What did her team write?",
    ),
    ("The library opens at ten.",),
    ("A fire destroyed the mill at Arkwright Bridge.", "What was destroyed?"),
    (
        "Between 1990 and 2010 the number of storks in Alsace rose from nine pairs to more than "
        "four hundred, because farmers stopped draining the meadows along the Rhine.",
        "Why did the number of storks rise?",
    ),
    ("Volvo recalled 14,000 lorries because of a faulty brake valve.", "What did Volvo recall?"),
    ("Ms Tanaka moved from Osaka to Toronto.",),
    (
        "The bridge over the Neva is raised every night from April to November. Ships pass in a "
        "fixed order, and drivers who come late must wait until five in the morning.",
        "How long must late drivers wait?",
    ),
    ("Researchers at Uppsala University dated the boat to the ninth century.",),
    ("The second engine failed over the Atlantic.", "Which engine failed?"),
    (
        "Botswana has paved roads from Gaborone to Maun. North of Maun, in the delta of the "
        "Okavango, people travel by boat; the channels shift with every flood, and maps are "
        "out of date within a few years. The guides learn the way from their parents.",
        "Where is the delta?",
        "From whom do the guides learn the way?",
    ),
    ("Inflation in Turkey slowed in June.", "When did inflation slow?"),
    ("Peter Novak resigned.",),
    (
        "A wooden clock by John Harrison, made in 1717, still runs in Nostell Priory. It needs no "
        "oil, since its wheels turn on a wood that is greasy by itself.",
        "Who made the clock?",
        "Why does the clock need no oil?",
    ),
    ("Ferries between Split and Hvar stopped because of the wind.",),
    ("The court in Strasbourg ruled against Poland.", "Which court ruled?"),
    (
        "In Accra a new market hall was opened on Monday. It has room for nine hundred stalls, a "
        "nursery and a clinic, and its roof collects the rain for the fish sellers.",
        "What does the roof collect?",
    ),
    ("Samples three and five were lost in transit.", "Which samples were lost?"),
    ("The winter of 1709 froze the lagoon of Venice.",),
    (
        "Air traffic over Iceland was halted for six days in April 2010. Ash from Eyjafjallajokull "
        "reached Moscow, and more than ninety thousand flights were cancelled in Europe, which "
        "left ten million people stranded at airports from Dublin to Athens.",
        "How many flights were cancelled?",
        "How long was air traffic halted?",
    ),
    ("Elena Petrova won the chess title in Riga.", "Where did Elena Petrova win?"),
    ("The tram to Grinzing runs every six minutes.",),
    (
        "Manchester and Liverpool were linked by rail in 1830. The opening was marred by the death "
        "of William Huskisson, a member of parliament, who stepped on to the track.",
        "When were Manchester and Liverpool linked by rail?",
    ),
    ("Nestle sold its water business in North America.", "What did Nestle sell?"),
    ("Only one of the nine lighthouses is still manned.",),
    (
        "The glass for the greenhouse came from Charleroi, the iron from Bilbao and the palms from "
        "Madeira. It took eleven ships.",
        "Where did the iron come from?",
        "How many ships did it take?",
    ),
    ("Quito lies higher than Bogota.", "Which city lies higher?"),
)


def load_texts(path: Path | None, *, ask: bool) -> list[Document]:
    """Returns the documents to send, in a fixed order.

    Args:
        path: A text file with one text per line, or `.jsonl` with `text` and `questions`; None
            takes Trunkline's own forty.
        ask: Whether the model answers questions; if not, they are left out.

    Raises:
        DataError: The file cannot be read; names the line.
    """
    given = [(text, questions) for text, *questions in _TEXTS] if path is None else _read(path)
    return [
        Document(text, tuple(map(Question, questions)) if ask else ()) for text, questions in given
    ]


def _read(path: Path) -> list[tuple[str, Sequence[str]]]:
    try:
        lines = read_edited(path).split("\n")  # other line ends may stand in a text
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8: {error.reason} at byte {error.start}") from None
    read = _read_json if path.suffix.lower() == ".jsonl" else _read_plain
    found = [read(path, at, line) for at, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(path, "is empty; give at least one text")
    return found


def _read_plain(path: Path, number: int, line: str) -> tuple[str, Sequence[str]]:
    return line, ()


def _read_json(path: Path, number: int, line: str) -> tuple[str, Sequence[str]]:
    try:
        record = json.loads(line)
        return str(record["text"]), [str(one) for one in record.get("questions", ())]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(path, 'expected {"text": ..., "questions": [...]}', number) from None
