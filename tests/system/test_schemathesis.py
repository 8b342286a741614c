"""The API checked against its own OpenAPI document, by generated valid and invalid requests.

Runs after the commands of the README, because it changes the demo catalogue.
"""

from typing import Any

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_gateway.openapi import describe
from api_gateway.routes import API_ROUTES
from tests.support.system import System

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# Tests are collected before the system runs.
DOCUMENT = orjson.loads(orjson.dumps(describe(API_ROUTES)))
schema = schemathesis.openapi.from_dict(DOCUMENT)


def bounded(examples: int) -> settings:
    """At most `examples` requests in addition to those in the schema, the same in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def token(system: System) -> str:
    login = {
        "email": system.environment["ADMIN_EMAIL"],
        "password": system.environment["ADMIN_PASSWORD"],
    }
    response = httpx.post(f"{system.gateway_url}/v1/auth/login", json=login, trust_env=False)
    return str(response.json()["access_token"])


def test_the_served_document_is_the_tested_one(system: System) -> None:
    served = httpx.get(f"{system.gateway_url}/openapi.json", trust_env=False).json()
    assert served == DOCUMENT


@schema.parametrize()
@bounded(10)
def test_responses_to_an_administrator_match_the_document(
    case: Case[Any], system: System, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    case.call_and_validate(system.gateway_url, headers=headers, checks=CHECKS)


@schema.parametrize()
@bounded(3)
def test_responses_to_an_anonymous_client_match_the_document(
    case: Case[Any], system: System
) -> None:
    case.call_and_validate(system.gateway_url, headers={"Authorization": ""}, checks=CHECKS)
