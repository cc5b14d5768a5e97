from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadModelRequest(_message.Message):
    __slots__ = ("bundle", "replace")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    replace: bool
    def __init__(self, bundle: _Optional[str] = ..., replace: bool = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: ModelId
    def __init__(self, id: _Optional[_Union[ModelId, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model", "model_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[int] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelId]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelId, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelId]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelId, _Mapping]]] = ...) -> None: ...

class DescribeModelRequest(_message.Message):
    __slots__ = ("model", "model_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_version: int
    def __init__(self, model: _Optional[str] = ..., model_version: _Optional[int] = ...) -> None: ...

class DescribeModelResponse(_message.Message):
    __slots__ = ("id", "tasks", "limits", "graphs", "gates")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    GRAPHS_FIELD_NUMBER: _ClassVar[int]
    GATES_FIELD_NUMBER: _ClassVar[int]
    id: ModelId
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    limits: Limits
    graphs: _containers.RepeatedCompositeFieldContainer[Graph]
    gates: _containers.RepeatedCompositeFieldContainer[Gate]
    def __init__(self, id: _Optional[_Union[ModelId, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., graphs: _Optional[_Iterable[_Union[Graph, _Mapping]]] = ..., gates: _Optional[_Iterable[_Union[Gate, _Mapping]]] = ...) -> None: ...

class ModelId(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("name", "kind", "labels", "pair")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    pair: bool
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., pair: bool = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_text_bytes", "max_documents", "max_questions", "max_question_tokens", "max_message_bytes", "max_stream_requests")
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUESTION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    max_text_bytes: int
    max_documents: int
    max_questions: int
    max_question_tokens: int
    max_message_bytes: int
    max_stream_requests: int
    def __init__(self, max_text_bytes: _Optional[int] = ..., max_documents: _Optional[int] = ..., max_questions: _Optional[int] = ..., max_question_tokens: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_stream_requests: _Optional[int] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("file", "layout", "precision", "providers", "sha256", "serving")
    FILE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PROVIDERS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    file: str
    layout: str
    precision: str
    providers: _containers.RepeatedScalarFieldContainer[str]
    sha256: str
    serving: bool
    def __init__(self, file: _Optional[str] = ..., layout: _Optional[str] = ..., precision: _Optional[str] = ..., providers: _Optional[_Iterable[str]] = ..., sha256: _Optional[str] = ..., serving: bool = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ("graph", "task", "metric", "reference", "value", "examples", "passed", "low", "high", "agreement")
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    graph: str
    task: str
    metric: str
    reference: float
    value: float
    examples: int
    passed: bool
    low: float
    high: float
    agreement: float
    def __init__(self, graph: _Optional[str] = ..., task: _Optional[str] = ..., metric: _Optional[str] = ..., reference: _Optional[float] = ..., value: _Optional[float] = ..., examples: _Optional[int] = ..., passed: bool = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., agreement: _Optional[float] = ...) -> None: ...
