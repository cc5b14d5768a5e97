"""One round of `benchmarks.edge`, as a program: it must import nothing that an edge box would not.

python benchmarks/edge_round.py BUNDLE GRAPH
"""

import json
import resource
import statistics
import sys
import time

_TEXT = "IBM opened an office in Bern, and Wangari Maathai spoke there on Monday."
_TEXTS, _TIMED = 300, 101
_KILO = 1024.0  # of ru_maxrss, in kilobytes


def main() -> None:
    """Loads and uses the bundle; prints what it took as JSON."""
    bundle, graph = sys.argv[1:]
    begin = time.perf_counter()
    import trunkline

    # What is looked at here does not hang on what the graph answers.
    model = trunkline.load(bundle, graph=graph, allow_ungated=True)
    model.analyze(_TEXT)
    first = time.perf_counter() - begin
    for count in range(1, _TEXTS):
        model.analyze(["word " * (count * 7 % 300 + 1)] * (count % 5 + 1))
    times = []
    for _ in range(_TIMED):
        begin = time.perf_counter()
        model.analyze(_TEXT)
        times.append(time.perf_counter() - begin)
    found = {
        "first_answer_s": first,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILO,
        "p50_ms": 1000.0 * statistics.median(times),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
