import json
import logging
from pathlib import Path

import pytest

from trunkline.errors import (
    BundleError,
    ConfigError,
    DeadlinePassed,
    InvalidInput,
    NotFound,
    Overloaded,
    RuntimeFault,
    TrunklineError,
    Unavailable,
)
from trunkline_serve.fronts.failure import pack_error, unpack_error


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("documents[0].text", "is too long"),
        NotFound("model", "tiny", ["tinny"]),
        BundleError(Path("/bundles/é"), "is broken", "export it again"),
        Overloaded("no room", 0.25),
        ConfigError("port: no"),
        Unavailable("away"),
        DeadlinePassed("late"),
        RuntimeFault("NaN"),
    ],
)
def test_errors_arrive_as_they_were(error: TrunklineError) -> None:
    found = unpack_error(json.loads(json.dumps(pack_error(error))))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_what_is_not_ours_is_logged_where_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = unpack_error(pack_error(ZeroDivisionError("division by zero")))
    assert isinstance(found, RuntimeFault)
    assert "ZeroDivisionError: division by zero" in str(found)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
