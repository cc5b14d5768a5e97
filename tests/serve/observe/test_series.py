from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from trunkline_serve.observe.series import Counts, Spread

BOUNDS = [0.5, 1.0, 2.5, 10.0]
LABELS = st.sampled_from(["a", "b", 'odd "name"\n'])
VALUES = st.integers(0, 160).map(lambda eighths: eighths / 8)


@given(st.lists(st.tuples(LABELS, VALUES)))
def test_they_read_like_the_library_s_own(told: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts, spread = Counts("seen", "Seen.", ["kind"]), Spread("took", "Took.", ["kind"], BOUNDS)
    ours.register(counts)
    ours.register(spread)
    counter = Counter("seen", "Seen.", ["kind"], registry=theirs)
    histogram = Histogram("took", "Took.", ["kind"], registry=theirs, buckets=BOUNDS)
    for kind, value in told:
        counts.add((kind,), value)
        spread.add((kind,), value)
        counter.labels(kind).inc(value)
        histogram.labels(kind).observe(value)
    assert _lines(ours) == _lines(theirs)


def _lines(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode()
    return sorted(line for line in text.splitlines() if "_created" not in line)
