"""The API held against its own description by generated requests, fitting and not.

Runs after the README's example, because it plays with the demo catalogue.
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
# Tests are collected before there is a system to ask.
DOCUMENT = orjson.loads(orjson.dumps(describe(API_ROUTES)))
schema = schemathesis.openapi.from_dict(DOCUMENT)


def bounded(examples: int) -> settings:
    """So many examples at most beyond those that follow from the schema; always the same ones."""
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
    answer = httpx.post(f"{system.gateway_url}/v1/auth/login", json=login, trust_env=False)
    return str(answer.json()["access_token"])


def test_the_description_served_is_the_one_tested(system: System) -> None:
    served = httpx.get(f"{system.gateway_url}/openapi.json", trust_env=False).json()
    assert served == DOCUMENT


@schema.parametrize()
@bounded(10)
def test_an_administrator_gets_what_the_description_says(
    case: Case[Any], system: System, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    case.call_and_validate(system.gateway_url, headers=headers, checks=CHECKS)


@schema.parametrize()
@bounded(3)
def test_nobody_gets_what_the_description_says(case: Case[Any], system: System) -> None:
    case.call_and_validate(system.gateway_url, headers={"Authorization": ""}, checks=CHECKS)
