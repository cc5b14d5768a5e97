import errno
import os
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.serve.hosting import PATIENCE, Loop, wait_for, watched
from tests.serve.observe.watching import ANALYZE, Caller, observed, scraped
from trunkline import Model
from trunkline.errors import ConfigError
from trunkline.v1 import analysis_service_pb2 as pb
from trunkline_serve.events import BatchRan
from trunkline_serve.observe.http import MetricsServer
from trunkline_serve.settings import Limits

STAGES = ("encode", "queue", "compute", "decode")


def test_answers_are_counted_by_model_version_and_task(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        caller.ask("Ada in Rome", "IBM opened an office in Bern")
        caller.ask("Ada", model="tiny", model_version=1)
        seen = scraped(hosted)
    assert seen.sums("trunkline_calls_total", "model", "version") == {("tiny", "1"): 2}
    assert seen.sums("trunkline_documents_total", "model", "version") == {("tiny", "1"): 3}
    assert seen.sums("trunkline_task_calls_total", "task")["ner",] == 2
    assert seen.sums("trunkline_task_documents_total", "task")["ner",] == 3
    assert seen.sums("trunkline_rpcs_total", "method", "code") == {(ANALYZE, "OK"): 2}


def test_a_question_counts_for_its_task_alone(host: Loop, model: Model) -> None:
    document = pb.Document(
        text="IBM opened an office in Bern",
        tasks=["topic"],
        questions=[pb.Question(text="Who?"), pb.Question(text="Where?")],
    )
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        caller.ask(document)
        seen = scraped(hosted)
    assert seen.sums("trunkline_task_documents_total", "task") == {("topic",): 1, ("qa",): 2}
    assert seen.sums("trunkline_task_calls_total", "task") == {("topic",): 1, ("qa",): 1}


def test_the_stages_of_a_call_are_within_its_total(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        reply = caller.ask("Ada in Rome").result()
        seen = scraped(hosted)
    counts = seen.sums("trunkline_stage_seconds_count", "stage")
    assert counts == {(stage,): 1 for stage in (*STAGES, "total")}
    spent = seen.sums("trunkline_stage_seconds_sum", "stage")
    assert all(spent[stage,] > 0 for stage in STAGES)
    assert sum(spent[stage,] for stage in STAGES) <= spent["total",]
    assert seen.total("trunkline_tokens_total") == reply.timing.tokens


def test_a_model_that_is_not_served_is_never_a_label(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        caller.fail("Ada", model="somebody's secret")
        caller.fail("Ada", model="tiny", model_version=7)
        caller.fail("Ada " * 100_000, model="tiny")
        seen = scraped(hosted)
        text = _text(hosted.host.metrics_address)
    assert seen.sums("trunkline_failures_total", "model", "reason") == {
        ("", "NOT_FOUND"): 1,
        ("tiny", "NOT_FOUND"): 1,
        ("tiny", "INVALID_INPUT"): 1,
    }
    assert "secret" not in text


def test_every_call_is_counted_by_its_status(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        caller.send(b"\xff\xff")
        caller.fail("Ada", model="other")
        caller.stream(["Ada", "Rome"])
        wait_for(lambda: scraped(hosted).total("trunkline_rpcs_total") == 3)
        seen = scraped(hosted)
    assert seen.sums("trunkline_rpcs_total", "method", "code") == {
        (ANALYZE, "INVALID_ARGUMENT"): 1,
        (ANALYZE, "NOT_FOUND"): 1,
        (f"{ANALYZE}Stream", "OK"): 1,
    }
    assert seen.total("trunkline_calls_total") == 2


def test_what_waits_is_seen_and_the_batch_it_becomes(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    with observed(host, [model]) as hosted, Caller(hosted.address) as caller:
        recorder.gate.clear()
        first = caller.start("Ada")
        recorder.wait_until_busy()
        others = [caller.start("Ada in Rome"), caller.start("Bern")]
        wait_for(lambda: scraped(hosted).total("trunkline_queued_tokens") == 8)
        waiting = scraped(hosted)
        recorder.gate.set()
        for call in (first, *others):
            call.result(PATIENCE)
        seen = scraped(hosted)
    assert waiting.total("trunkline_documents_in_flight") == 3
    assert seen.total("trunkline_documents_in_flight") == 0
    assert seen.total("trunkline_queued_tokens") == 0
    assert seen.total("trunkline_rows_total") == 3
    assert seen.total("trunkline_tokens_total") == 3 + 8
    assert seen.total("trunkline_computed_tokens_total") == 3 + 5 * 2
    assert seen.total("trunkline_batch_calls_sum") == 3
    assert seen.sums("trunkline_batch_calls_bucket", "le")["1.0",] == 1
    assert seen.sums("trunkline_batches_total", "released") == {("drained",): 2}
    fill = seen.total("trunkline_batch_fill_sum")
    assert fill == pytest.approx((3 + 8) / recorder.budget)
    assert seen.total("trunkline_batch_queue_age_seconds_sum") > 0


def test_refusals_and_dropped_rows_are_counted(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    limits = Limits(max_in_flight=2, max_documents=2)
    with observed(host, [model], limits=limits) as hosted, Caller(hosted.address) as caller:
        recorder.gate.clear()
        first = caller.start("Ada")
        recorder.wait_until_busy()
        second = caller.start("Rome")
        wait_for(lambda: scraped(hosted).total("trunkline_queued_tokens") == 3)
        caller.fail("Bern")
        second.cancel()
        wait_for(lambda: scraped(hosted).total("trunkline_failures_total") == 2)
        recorder.gate.set()
        first.result(PATIENCE)
        seen = scraped(hosted)
    assert seen.sums("trunkline_failures_total", "reason", "stage") == {
        ("OVERLOADED", "admission"): 1,
        ("CANCELLED", "queue"): 1,
    }
    assert seen.sums("trunkline_dropped_rows_total", "model", "reason") == {
        ("tiny", "cancelled"): 1
    }
    assert seen.sums("trunkline_failure_seconds_count", "reason")["OVERLOADED",] == 1
    assert seen.sums("trunkline_rpcs_total", "code")["CANCELLED",] == 1


def test_an_error_that_ends_threads_is_internal_and_counted(host: Loop, bundle: Path) -> None:
    model, recorder = watched(bundle)
    limits = Limits(max_in_flight=1, max_documents=1)
    with observed(host, [model], limits=limits) as hosted, Caller(hosted.address) as caller:
        before = scraped(hosted).total("trunkline_lane_failures_total")
        recorder.failure = SystemExit(1)
        for _ in range(3):
            error = caller.fail("Ada")
            assert error.code() is grpc.StatusCode.INTERNAL
            assert error.details().startswith("internal error ")
        recorder.failure = None
        caller.ask("Ada").result(PATIENCE)
        seen = scraped(hosted)
    assert before == 0
    assert seen.total("trunkline_lane_failures_total") == 3
    assert seen.total("trunkline_documents_in_flight") == 0


def test_models_and_draining_are_told(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted:
        before = scraped(hosted)
        host.run(hosted.engine.drain(1))
        after = scraped(hosted)
    assert before.sums("trunkline_model_served", "model", "version") == {("tiny", "1"): 1}
    assert before.total("trunkline_draining") == 0
    assert after.total("trunkline_draining") == 1
    assert after.total("process_resident_memory_bytes") > 0


def test_lanes_may_tell_at_the_same_time(host: Loop, model: Model) -> None:
    batch = BatchRan("tiny", 1, 1, 5, 7, 100, 1, "full", 1, 1)
    with observed(host, [model]) as hosted:

        def tell() -> None:
            for _ in range(5000):
                hosted.engine.events.batch_ran(batch)

        lanes = [threading.Thread(target=tell) for _ in range(4)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        assert scraped(hosted).total("trunkline_tokens_total") == 4 * 5000 * 5


def test_a_reader_that_never_asks_holds_up_nobody(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted:
        address = hosted.host.metrics_address
        assert address is not None
        name, _, port = address.rpartition(":")
        with (
            socket.create_connection((name, int(port))),
            socket.create_connection((name, int(port))) as half,
        ):
            half.sendall(b"GET /metr")
            assert scraped(hosted).total("trunkline_build_info") == 1


def test_metrics_are_served_on_ipv6() -> None:
    registry = CollectorRegistry()
    server = MetricsServer(registry, "::1", 0)
    try:
        assert server.address.startswith("[::1]:")
        assert _text(server.address).encode() == generate_latest(registry)
    finally:
        server.close()


def test_a_taken_port_is_told(host: Loop, model: Model) -> None:
    with observed(host, [model]) as hosted:
        address = hosted.host.metrics_address
        assert address is not None
        with pytest.raises(ConfigError, match="cannot serve metrics on"):
            MetricsServer(CollectorRegistry(), "127.0.0.1", int(address.rpartition(":")[2]))


def test_a_host_of_no_name_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot serve metrics on"):
        MetricsServer(CollectorRegistry(), "no-such-host.invalid", 0)


def _text(address: Any) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE) as reply:
        text: str = reply.read().decode()
    return text


def test_without_a_descriptor_metrics_wait_and_do_not_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptor(_: object) -> None:
        tries.append(0)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    tries: list[int] = []
    server = MetricsServer(CollectorRegistry(), "127.0.0.1", 0)
    try:
        monkeypatch.setattr("socket.socket.accept", no_descriptor)
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE):
            begin = time.monotonic()
            wait_for(lambda: len(tries) > 2)
            assert len(tries) <= 2 + (time.monotonic() - begin) / 0.1
    finally:
        monkeypatch.undo()
        server.close()
