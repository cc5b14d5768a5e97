"""A model by its own name: texts in, the JSON of each task's annotations out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from trunkline import Document, DocumentResult, Question
from trunkline.errors import InvalidInput, NotFound
from trunkline.kinds import find_kind
from trunkline.tasks import TaskSpec
from trunkline_serve.aside import aside
from trunkline_serve.engine import Engine
from trunkline_serve.models import Served
from trunkline_serve.oip.answers import Answered, requested
from trunkline_serve.oip.tensors import BYTES, Array, Spec, read_inputs
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

TEXT, QUESTION, PAIR = "TEXT", "QUESTION", "TEXT_PAIR"
TASKS = "tasks"

_TASKS_LENGTH = 16_384  # characters of all their names

# Triton's tools want a size behind the batch.
_SHAPE = (-1, 1)
_FIELD = re.compile(r"documents\[(\d+)\]\.(text_pair|text|questions)\b.*")
_NAMES = {"text": TEXT, "text_pair": PAIR, "questions": QUESTION}


class TextModel:
    """Answers requests to a model for its annotations.

    Args:
        engine: Analyses.
        served: The model.

    Attributes:
        name, version: What it is called.
        platform: What runs it.
        inputs, outputs: What it takes and gives.
    """

    platform: str = "trunkline"

    def __init__(self, engine: Engine, served: Served) -> None:
        self._engine = engine
        self._tasks = {spec.name: spec for spec in served.model.manifest.tasks}
        self.name, self.version = served.id.name, served.id.version
        # Of the optional inputs, those that some task reads.
        read = {one for spec in self._tasks.values() for one in _needs(spec)}
        optional = [one for one in (QUESTION, PAIR) if one in read]
        self.inputs: tuple[Spec, ...] = (
            Spec(TEXT, BYTES, _SHAPE),
            *(Spec(one, BYTES, _SHAPE, optional=True) for one in optional),
        )
        self.outputs = tuple(Spec(task, BYTES, _SHAPE) for task in self._tasks)

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> Answered:
        """Returns the JSON of each wanted task's annotations, one element per text.

        Args:
            request: Has the texts, and which tasks are wanted.
            deadline: On `time.monotonic`'s clock; None for none.

        Raises:
            InvalidInput: Something in the request is at fault; names the field.
            NotFound: A task is unknown.
            TrunklineError: As of `Engine.analyze`.
        """
        limit = self._engine.settings.limits.max_documents
        inputs = read_inputs(request, self.inputs, limit)
        wanted = self._wanted(request, inputs)
        texts = {name: _texts(name, values) for name, values in inputs.items()}
        documents = _documents(texts, wanted)
        try:
            analysis = await self._engine.analyze(
                documents, model=self.name, version=self.version, deadline=deadline
            )
        except InvalidInput as error:
            raise _renamed(error) from None
        names = [spec.name for spec in wanted]
        elements = await aside(analysis.size, lambda: _write(analysis.results, names))
        shape = inputs[TEXT].shape
        return [(Spec(name, BYTES, _SHAPE), elements[name].reshape(shape)) for name in names]

    def _wanted(self, request: pb.ModelInferRequest, inputs: Mapping[str, Array]) -> list[TaskSpec]:
        """Returns the tasks to do: those named, else all that the inputs allow."""
        names = self._named(request)
        chosen = [self._tasks[name] for name in names or self._tasks]
        lacking = [(spec, one) for spec in chosen for one in _needs(spec) if one not in inputs]
        possible = [spec for spec in chosen if all(spec is not other for other, _ in lacking)]
        if lacking and (names or not possible):
            spec, missing = lacking[0]
            raise InvalidInput("inputs", f"{missing} is missing; task {spec.name!r} reads it")
        return possible

    def _named(self, request: pb.ModelInferRequest) -> list[str]:
        """Returns the tasks that a request names, as outputs or in its parameter, or both."""
        tasks = _named_tasks(request)
        for name in tasks:
            if name not in self._tasks:
                raise NotFound("task", name, self._tasks)
        outputs = requested(request, self.outputs)
        # Triton's tools ask for every output: then the parameter decides.
        both = [name for name in outputs if name in tasks]
        if tasks and outputs and not both:
            raise InvalidInput("outputs", f"names none of the tasks in parameters[{TASKS}]")
        return both or outputs or tasks


def _needs(spec: TaskSpec) -> tuple[str, ...]:
    """Returns the optional inputs that a task reads."""
    needs = {QUESTION: find_kind(spec.kind).asks, PAIR: spec.pair}
    return tuple(name for name, needed in needs.items() if needed)


def _named_tasks(request: pb.ModelInferRequest) -> list[str]:
    """Returns the names in the parameter `tasks`, each once."""
    if TASKS not in request.parameters:
        return []
    field, parameter = f"parameters[{TASKS}]", request.parameters[TASKS]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(field, "is no string; name tasks as in 'ner,pos'")
    if len(parameter.string_param) > _TASKS_LENGTH:
        raise InvalidInput(field, f"has more than {_TASKS_LENGTH} characters")
    names = [name.strip() for name in parameter.string_param.split(",")]
    if not all(names):
        raise InvalidInput(field, "names no task; name tasks as in 'ner,pos', or leave it out")
    return list(dict.fromkeys(names))


def _texts(name: str, values: Array) -> list[str]:
    texts = []
    for at, data in enumerate(values.flat):
        try:
            texts.append(data.decode())
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8: {error.reason} at byte {error.start}"
            raise InvalidInput(f"{name}[{at}]", reason) from None
    return texts


def _documents(texts: Mapping[str, Sequence[str]], wanted: Sequence[TaskSpec]) -> list[Document]:
    asking = [spec.name for spec in wanted if find_kind(spec.kind).asks]
    reading = tuple(spec.name for spec in wanted if spec.name not in asking)
    paired = any(spec.pair for spec in wanted)
    return [
        Document(
            text,
            questions=tuple(Question(texts[QUESTION][at], task) for task in asking),
            tasks=reading,
            text_pair=texts[PAIR][at] if paired else None,
        )
        for at, text in enumerate(texts[TEXT])
    ]


def _renamed(error: InvalidInput) -> InvalidInput:
    """Returns the error with the field as the caller knows it, e.g. `TEXT[2]`."""
    found = _FIELD.fullmatch(error.field)
    if found is None:
        return error
    return InvalidInput(f"{_NAMES[found[2]]}[{found[1]}]", error.reason)


def _write(results: Sequence[DocumentResult], tasks: Sequence[str]) -> dict[str, Array]:
    elements = {task: np.empty(len(results), object) for task in tasks}
    for at, result in enumerate(results):
        answers = {question.task: question.answers for question in result.questions}
        for task, values in elements.items():
            found = answers[task] if task in answers else result.tasks[task]
            shown = [one.to_dict() for one in found]
            values[at] = json.dumps(shown, ensure_ascii=False).encode()
    return elements
