"""Requests drawn from an application's OpenAPI document, and whether its answers keep to it."""

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
"""Of each operation and kind in a campaign; a share of it, always the same, where there is none."""
SHARE = 5
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance, negative_data_rejection,
]  # fmt: skip

Operation = Any
Case = Any


def operations(document: dict[str, Any], but: tuple[str, ...] = ()) -> Iterator[Operation]:
    """Operations of a document, without those whose path is among some."""
    config = schemathesis.Config()
    for found in schemathesis.openapi.from_dict(document, config=config).get_all_operations():
        assert not isinstance(found, Err), found.err()
        operation = found.ok()
        if operation.path not in but:
            yield operation


def keeps(client: TestClient, operation: Operation, placed: Callable[[Case, st.DataObject], None]) -> None:
    """Ask an operation for what fits its declaration and what does not; every answer must keep it.

    Parameters
    ----------
    placed : callable
        Puts names of what is really there into some of the cases.
    """
    both = st.one_of(
        operation.as_strategy(schemathesis.GenerationMode.POSITIVE),
        operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
        if _may_be_wrong(operation)
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
    @given(both, st.data())
    def ask(case: Case, data: st.DataObject) -> None:
        placed(case, data)
        case.validate_response(_asked(client, case), checks=CHECKS)

    ask()


def _may_be_wrong(operation: Operation) -> bool:
    return bool(list(operation.iter_parameters())) or bool(list(operation.body))


def _asked(client: TestClient, case: Case) -> Any:
    """The answer to a case, sent as `requests` would."""
    base = str(client.base_url)
    prepared = requests.Request(**case.as_transport_kwargs(base_url=base)).prepare()
    assert prepared.url is not None
    headers = {_bytes(k): _bytes(v) for k, v in prepared.headers.items() if k.lower() != "content-length"}
    content = _bytes(prepared.body or b"")
    return client.request(prepared.method or "GET", prepared.url, headers=headers, content=content)


def _bytes(text: Any) -> bytes:
    return bytes(text) if isinstance(text, bytes | bytearray) else str(text).encode()
