"""Generate requests from an OpenAPI document, and check the answers against it."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

EXAMPLES = int(os.environ.get("TONEWOOD_EXAMPLES", "0"))
"""Requests of each operation in a campaign; in the test suite, `SHARE` constant ones."""
SHARE = 3
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance, negative_data_rejection,
]  # fmt: skip

Operation = Any
Case = Any


def operations(document: dict[str, Any], excluded: tuple[str, ...] = ()) -> Iterator[Operation]:
    """Yield the operations of a document, without those of some paths."""
    config = schemathesis.Config()
    for result in schemathesis.openapi.from_dict(document, config=config).get_all_operations():
        assert not isinstance(result, Err), result.err()
        operation = result.ok()
        if operation.path not in excluded:
            yield operation


def check_operation(
    client: TestClient, operation: Operation, insert_names: Callable[[Case, st.DataObject], None]
) -> None:
    """Send valid and invalid requests to an operation; every answer must be as declared.

    Parameters
    ----------
    insert_names : callable
        Puts names of existing resources into some of the requests.
    """
    strategies = st.one_of(
        operation.as_strategy(schemathesis.GenerationMode.POSITIVE),
        operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
        if _accepts_input(operation)
        else st.nothing(),
    )

    @settings(
        max_examples=EXAMPLES or SHARE,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategies, st.data())
    def send_one(case: Case, data: st.DataObject) -> None:
        insert_names(case, data)
        case.validate_response(_send(client, case), checks=CHECKS)

    send_one()


def _accepts_input(operation: Operation) -> bool:
    return bool(list(operation.iter_parameters())) or bool(list(operation.body))


def _send(client: TestClient, case: Case) -> Any:
    """Send a request, encoded as `requests` would; return the answer."""
    base = str(client.base_url)
    prepared = requests.Request(**case.as_transport_kwargs(base_url=base)).prepare()
    assert prepared.url is not None
    headers = {_bytes(k): _bytes(v) for k, v in prepared.headers.items() if k.lower() != "content-length"}
    content = _bytes(prepared.body or b"")
    return client.request(prepared.method or "GET", prepared.url, headers=headers, content=content)


def _bytes(text: Any) -> bytes:
    return bytes(text) if isinstance(text, bytes | bytearray) else str(text).encode()
