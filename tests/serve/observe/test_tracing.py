import sys
import time
from collections.abc import Iterator

import pytest

from tests.serve.hosting import Loop
from tests.serve.observe.collector import Collector, attributes
from tests.serve.observe.watching import ANALYZE, Caller, observed, request_id
from trunkline import Model
from trunkline.errors import ConfigError, MissingExtra
from trunkline_serve.observe.tracing import Traces
from trunkline_serve.settings import Tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STAGES = ["encode", "queue", "compute", "decode"]
SERVER_KIND, ERROR = 2, 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_a_call_is_a_span_with_its_stages(host: Loop, model: Model, collector: Collector) -> None:
    tracing = Tracing(endpoint=collector.address)
    before = time.time_ns()
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        call = caller.ask("Ada in Rome", "Bern")
        spans = collector.wait_for(5)
    after = time.time_ns()
    (root,) = [span for span in spans if not span.parent_span_id]
    stages = [span for span in spans if span.parent_span_id == root.span_id]
    assert (root.name, root.kind, root.status.code) == (ANALYZE, SERVER_KIND, 0)
    assert [stage.name for stage in stages] == STAGES
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert before <= root.start_time_unix_nano <= root.end_time_unix_nano <= after
    times = [time for one in stages for time in (one.start_time_unix_nano, one.end_time_unix_nano)]
    assert times == sorted(times)
    assert root.start_time_unix_nano <= times[0] < times[-1] <= root.end_time_unix_nano
    said = attributes(root)
    assert said.pop("trunkline.tasks") == ["mood", "ner", "pos", "topic"]
    assert said == {
        "rpc.system": "grpc",
        "rpc.service": "trunkline.v1.AnalysisService",
        "rpc.method": "Analyze",
        "rpc.grpc.status_code": 0,
        "trunkline.model": "tiny",
        "trunkline.version": 1,
        "trunkline.documents": 2,
        "trunkline.tokens": call.result().timing.tokens,
        "trunkline.request_id": request_id(call),
    }
    assert attributes(collector.resources[0])["service.name"] == "trunkline"


def test_the_caller_s_trace_goes_on(host: Loop, model: Model, collector: Collector) -> None:
    tracing = Tracing(endpoint=collector.address, share=0.0)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.ask("Ada", metadata=[("traceparent", SAMPLED)])
        spans = collector.wait_for(5)
    (root,) = [span for span in spans if span.name == ANALYZE]
    assert root.trace_id.hex() == TRACE
    assert root.parent_span_id.hex() == PARENT


def test_only_what_is_asked_for_is_traced(host: Loop, model: Model, collector: Collector) -> None:
    tracing = Tracing(endpoint=collector.address, share=0.0)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.ask("Ada")
        caller.ask("Ada", metadata=[("traceparent", UNSAMPLED)])
        caller.ask("Ada", metadata=[("traceparent", "00-nonsense")])
        caller.ask("Ada", metadata=[("traceparent", SAMPLED)])
    # Closing has sent all there was.
    assert len(collector.spans) == 5
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}


def test_what_is_not_traced_for_its_caller_is_not_for_ours(
    host: Loop, model: Model, collector: Collector
) -> None:
    tracing = Tracing(endpoint=collector.address)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.ask("Ada", metadata=[("traceparent", UNSAMPLED)])
    assert collector.spans == []


def test_a_failure_says_why(host: Loop, model: Model, collector: Collector) -> None:
    tracing = Tracing(endpoint=collector.address)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.fail("Ada", model="other")
        host.run(hosted.engine.drain(1))
        caller.fail("Ada")
        refused, draining = collector.wait_for(2)
    assert attributes(refused)["trunkline.reason"] == "NOT_FOUND"
    assert attributes(refused)["rpc.grpc.status_code"] == 5
    assert refused.status.code == 0
    assert attributes(draining)["trunkline.reason"] == "UNAVAILABLE"
    assert (draining.status.code, draining.status.message) == (ERROR, "UNAVAILABLE")


def test_a_stream_is_one_span_with_the_stages_of_each_request(
    host: Loop, model: Model, collector: Collector
) -> None:
    tracing = Tracing(endpoint=collector.address)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.stream(["Ada", "Rome", "Bern"])
        spans = collector.wait_for(13)
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == f"{ANALYZE}Stream"
    assert attributes(root)["trunkline.documents"] == 3
    assert sorted(span.name for span in spans if span is not root) == sorted(STAGES * 3)


def test_there_are_no_texts_in_spans(host: Loop, model: Model, collector: Collector) -> None:
    tracing = Tracing(endpoint=collector.address)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        caller.ask("zebra ada")
        caller.fail("zebra", model="zebra")
        spans = collector.wait_for(6)
    assert not [span for span in spans if "zebra" in str(span)]


def test_without_a_collector_calls_are_answered_and_the_end_is_soon(
    host: Loop, model: Model
) -> None:
    collector = Collector()
    collector.close()
    tracing = Tracing(endpoint=collector.address)
    with observed(host, [model], tracing=tracing) as hosted, Caller(hosted.address) as caller:
        for _ in range(20):
            caller.ask("Ada")
        begin = time.monotonic()
    assert time.monotonic() - begin < 5


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[otel\]'"):
        Traces(Tracing(endpoint="127.0.0.1:4317"))


def test_a_share_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"tracing\.share: 2\.0 is not a share"):
        Traces(Tracing(endpoint="127.0.0.1:4317", share=2.0))
