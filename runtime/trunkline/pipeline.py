"""The path of a document: prepare -> run -> finish.

`prepare` and `finish` are pure and need no model, so a server may do them wherever it likes and
mix the rows of many requests in one `run`. In-process calls, evaluation and the server all come
through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trunkline.annotations import Answers, DocumentResult, QuestionResult, Span
from trunkline.encode import Encoded, Row, TextEncoder, Tokens
from trunkline.errors import InvalidInput, NotFound
from trunkline.kinds import Output, decode, find_kind, task_outputs
from trunkline.runner import RowOutputs, Runner
from trunkline.tasks import TaskSpec

_ROWS_AT_ONCE = 512  # bounds the memory of a long list of documents


@dataclass(frozen=True)
class Question:
    """A question about a document; `task` may stay empty if the model has one such task."""

    text: str
    task: str = ""


@dataclass(frozen=True)
class Document:
    """What to analyse.

    Attributes:
        text: Any length, any Unicode; may be empty.
        questions: Asked of the text.
        tasks: Names of the tasks wanted; None for all.
    """

    text: str
    questions: tuple[Question, ...] = ()
    tasks: tuple[str, ...] | None = None


def as_documents(
    texts: Iterable[str | Document], questions: Sequence[str], tasks: Sequence[str] | None
) -> list[Document]:
    """Returns texts as documents with the questions and tasks; documents stay as they are.

    Raises:
        InvalidInput: `questions` or `tasks` is a string, where a list is meant.
    """
    for field, value in (("questions", questions), ("tasks", tasks)):
        if isinstance(value, str):
            raise InvalidInput(field, "give a list")
    asked = tuple(Question(question) for question in questions)
    wanted = None if tasks is None else tuple(tasks)
    return [one if isinstance(one, Document) else Document(one, asked, wanted) for one in texts]


@dataclass(frozen=True)
class Asked:
    """A question as rows."""

    question: str
    spec: TaskSpec
    encoded: Encoded


@dataclass(frozen=True)
class Prepared:
    """A document as rows: its own, shared by all text tasks, and those of each question."""

    text: str
    specs: tuple[TaskSpec, ...]
    encoded: Encoded
    asked: tuple[Asked, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows to run, in the order `Pipeline.finish` wants their outputs."""
        parts = (self.encoded.rows, *(asked.encoded.rows for asked in self.asked))
        return tuple(row for part in parts for row in part)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The graph outputs that some row needs."""
        specs = dict.fromkeys((*self.specs, *(asked.spec for asked in self.asked)))
        return tuple(output for spec in specs for output in task_outputs(spec))


class Pipeline:
    """Tasks, tokenizer and model together.

    Args:
        tasks: The model's tasks.
        encoder: Cuts texts into rows.
        runner: Runs rows.
    """

    def __init__(self, tasks: Sequence[TaskSpec], encoder: TextEncoder, runner: Runner) -> None:
        self.tasks = {spec.name: spec for spec in tasks}
        self.encoder = encoder
        self.runner = runner

    def analyze(self, documents: Sequence[Document]) -> list[DocumentResult]:
        """Returns one result per document, in order.

        Raises:
            InvalidInput: A text or question cannot be read; the field names which.
            NotFound: A task is unknown.
            RuntimeFault: The model gave NaN.
        """
        prepared = [self.prepare(doc, f"documents[{at}]") for at, doc in enumerate(documents)]
        results: list[DocumentResult] = []
        for group in _groups(prepared):
            outputs = self.run(group)
            results += [self.finish(one, given) for one, given in zip(group, outputs, strict=True)]
        return results

    def prepare(self, document: Document, field: str = "document") -> Prepared:
        """Tokenises a document and its questions, and cuts them into rows.

        Raises:
            InvalidInput: A text or question cannot be read; named below `field`.
            NotFound: A task is unknown.
        """
        # Names first: a wrong one on a long text should cost nothing.
        specs = self._text_tasks(document.tasks)
        places = [f"{field}.questions[{at}]" for at in range(len(document.questions))]
        asking = [
            self._question_task(question, document.tasks, place)
            for question, place in zip(document.questions, places, strict=True)
        ]
        tokens = self.encoder.tokenize(document.text, f"{field}.text")
        encoded = Encoded(tokens, self.encoder.rows(tokens) if specs else ())
        asked = [
            Asked(question.text, spec, self._ask(question.text, tokens, f"{place}.text"))
            for question, spec, place in zip(document.questions, asking, places, strict=True)
        ]
        return Prepared(document.text, specs, encoded, tuple(asked))

    def run(self, group: Sequence[Prepared]) -> list[list[RowOutputs]]:
        """Runs the rows of several documents together; returns each document's outputs."""
        rows = [row for one in group for row in one.rows]
        outputs = list(dict.fromkeys(output for one in group for output in one.outputs))
        values = iter(self.runner.run(rows, outputs) if rows else [])
        return [[next(values) for _ in one.rows] for one in group]

    def finish(self, prepared: Prepared, outputs: Sequence[RowOutputs]) -> DocumentResult:
        """Decodes a document's outputs, given in the order of `Prepared.rows`.

        Raises:
            RuntimeFault: The model gave NaN.
        """
        own, rest = _split(outputs, len(prepared.encoded.rows))
        tasks: dict[str, tuple[Span, ...]] = {}
        for spec in prepared.specs:
            spans = decode(spec, prepared.encoded, own)
            assert isinstance(spans, tuple)
            tasks[spec.name] = spans
        questions = []
        for asked in prepared.asked:
            mine, rest = _split(rest, len(asked.encoded.rows))
            found = decode(asked.spec, asked.encoded, mine)
            assert isinstance(found, Answers)
            questions.append(
                QuestionResult(asked.question, asked.spec.name, found.best, found.no_answer_score)
            )
        return DocumentResult(prepared.text, tasks, tuple(questions))

    def _text_tasks(self, names: tuple[str, ...] | None) -> tuple[TaskSpec, ...]:
        for name in names or ():
            if name not in self.tasks:
                raise NotFound("task", name, self.tasks)
        wanted = self.tasks.values() if names is None else [self.tasks[name] for name in names]
        return tuple(dict.fromkeys(spec for spec in wanted if not find_kind(spec.kind).asks))

    def _ask(self, question: str, document: Tokens, field: str) -> Encoded:
        words = self.encoder.tokenize(question, field)
        try:
            return Encoded(document, self.encoder.rows(document, words))
        except InvalidInput as error:
            raise InvalidInput(field, error.reason) from None

    def _question_task(
        self, question: Question, names: tuple[str, ...] | None, place: str
    ) -> TaskSpec:
        if not question.text.strip():
            raise InvalidInput(f"{place}.text", "is empty; give a question or leave it out")
        name = question.task
        asking = {n: spec for n, spec in self.tasks.items() if find_kind(spec.kind).asks}
        if name:
            if name not in asking:
                raise NotFound("question task", name, asking)
            return asking[name]
        if names is not None:
            asking = {n: spec for n, spec in asking.items() if n in names} or asking
        if len(asking) != 1:
            known = ", ".join(asking) or "none"
            raise InvalidInput(f"{place}.task", f"say which question task is meant; known: {known}")
        return next(iter(asking.values()))


def _groups(prepared: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Cuts a list of documents into groups of bounded size."""
    group: list[Prepared] = []
    rows = 0
    for one in prepared:
        if group and rows + len(one.rows) > _ROWS_AT_ONCE:
            yield group
            group, rows = [], 0
        group.append(one)
        rows += len(one.rows)
    if group:
        yield group


def _split(
    values: Sequence[RowOutputs], count: int
) -> tuple[Sequence[RowOutputs], Sequence[RowOutputs]]:
    return values[:count], values[count:]
