"""The path of a document: prepare -> run -> finish.

`prepare` and `finish` are pure and need no model, so a server may do them wherever it likes and
mix the rows of many requests in one `run`. In-process calls, evaluation and the server all come
through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trunkline.annotations import Annotations, Answers, DocumentResult, QuestionResult
from trunkline.documents import Document, Question
from trunkline.encode import Encoded, Row, TextEncoder, Tokens
from trunkline.errors import InvalidInput, NotFound
from trunkline.kinds import Output, decode, find_kind, task_outputs
from trunkline.runner import RowOutputs, Runner
from trunkline.tasks import TaskSpec

_ROWS_AT_ONCE = 512  # bounds the memory of a long list of documents


@dataclass(frozen=True)
class Asked:
    """A question as rows."""

    question: str
    spec: TaskSpec
    encoded: Encoded


@dataclass(frozen=True)
class Prepared:
    """A document as rows.

    Attributes:
        document: The document.
        specs: The text tasks wanted, in the order of the results.
        encoded: Rows of the text alone, shared by all tasks that read it so.
        paired: Rows of the pair of texts, shared by all tasks that read that.
        asked: Rows of each question.
    """

    document: Document
    specs: tuple[TaskSpec, ...]
    encoded: Encoded
    paired: Encoded
    asked: tuple[Asked, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows to run, in the order `Pipeline.finish` wants their outputs."""
        parts = (self.encoded, self.paired, *(asked.encoded for asked in self.asked))
        return tuple(row for part in parts for row in part.rows)

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
            InvalidInput: A text or question cannot be read or is missing; named below `field`.
            NotFound: A task is unknown.
        """
        # Names first: a wrong one on a long text should cost nothing.
        specs = self._text_tasks(document, field)
        places = [f"{field}.questions[{at}]" for at in range(len(document.questions))]
        asking = [
            self._question_task(question, document.tasks, place)
            for question, place in zip(document.questions, places, strict=True)
        ]
        tokens = self.encoder.tokenize(document.text, f"{field}.text")
        alone = any(not spec.pair for spec in specs)
        encoded = Encoded(tokens, self.encoder.rows(tokens) if alone else ())
        paired = Encoded(tokens, ())
        if document.text_pair is not None and any(spec.pair for spec in specs):
            place = f"{field}.text_pair"
            paired = self._beside(tokens, document.text_pair, place, pair=True)
        asked = [
            Asked(question.text, spec, self._beside(tokens, question.text, f"{place}.text"))
            for question, spec, place in zip(document.questions, asking, places, strict=True)
        ]
        return Prepared(document, specs, encoded, paired, tuple(asked))

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
        both, rest = _split(rest, len(prepared.paired.rows))
        tasks: dict[str, Annotations] = {}
        for spec in prepared.specs:
            encoded, values = (prepared.paired, both) if spec.pair else (prepared.encoded, own)
            annotations = decode(spec, encoded, values)
            assert isinstance(annotations, tuple)
            tasks[spec.name] = annotations
        questions = []
        for asked in prepared.asked:
            mine, rest = _split(rest, len(asked.encoded.rows))
            found = decode(asked.spec, asked.encoded, mine)
            assert isinstance(found, Answers)
            questions.append(
                QuestionResult(asked.question, asked.spec.name, found.best, found.no_answer_score)
            )
        document = prepared.document
        return DocumentResult(document.text, tasks, tuple(questions), document.text_pair)

    def _text_tasks(self, document: Document, field: str) -> tuple[TaskSpec, ...]:
        for name in document.tasks or ():
            if name not in self.tasks:
                raise NotFound("task", name, self.tasks)
        self._check_pair(document, f"{field}.text_pair")
        self._check_asked(document, f"{field}.questions")
        wanted = self.tasks if document.tasks is None else dict.fromkeys(document.tasks)
        specs = (self.tasks[name] for name in wanted)
        alone = document.text_pair is None
        return tuple(s for s in specs if not find_kind(s.kind).asks and not (alone and s.pair))

    def _check_pair(self, document: Document, field: str) -> None:
        """Raises InvalidInput if a second text is missing, or no task would ever read it."""
        pairs = [spec.name for spec in self.tasks.values() if spec.pair]
        if document.text_pair is not None and not pairs:
            raise InvalidInput(field, "no task of this model reads a pair of texts; leave it out")
        named = [name for name in document.tasks or () if name in pairs]
        if document.text_pair is None and named:
            raise InvalidInput(field, f"is missing; task {named[0]!r} reads a pair of texts")

    def _check_asked(self, document: Document, field: str) -> None:
        """Raises InvalidInput if a task is named that answers questions, and there is none."""
        named = [name for name in document.tasks or () if find_kind(self.tasks[name].kind).asks]
        if named and not document.questions:
            raise InvalidInput(field, f"is empty; task {named[0]!r} answers questions, ask one")

    def _beside(self, document: Tokens, other: str, field: str, *, pair: bool = False) -> Encoded:
        """Returns the document's rows, each behind a question or before the text of a pair."""
        words = self.encoder.tokenize(other, field)
        question, second = (None, words) if pair else (words, None)
        try:
            return Encoded(document, self.encoder.rows(document, question, pair=second))
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
        if not asking:
            raise InvalidInput(place, "this model has no question-answering task; leave it out")
        if len(asking) != 1:
            known = ", ".join(asking)
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
