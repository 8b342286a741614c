"""Settings from the environment: defaults, and every error reported at once."""

import os

import pytest

from consumer_service.settings import Settings as ConsumerSettings
from inventory_service.settings import Settings as InventorySettings
from order_service.settings import Settings as OrderSettings
from producer_service.settings import Settings as ProducerSettings
from service_kit.settings import ServiceSettings, SettingsError, load

URL = "postgresql+asyncpg://shop:secret@localhost/orders"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)


def errors(cls: type[ServiceSettings]) -> dict[str, str]:
    """The errors that `load` reports, by variable."""
    with pytest.raises(SettingsError) as error:
        load(cls)
    return dict(line.split(": ", 1) for line in str(error.value).splitlines())


def test_dependencies_are_expected_on_this_machine_at_their_usual_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORDER_DATABASE_URL", URL)
    settings = load(OrderSettings)
    assert settings.bind_host == "127.0.0.1"
    assert settings.order_service_port == 50051
    assert settings.user_service_addr == "localhost:50052"
    assert settings.inventory_service_addr == "localhost:50055"
    assert settings.producer_service_addr == "localhost:50054"


def test_a_dependency_is_found_by_its_port_or_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INVENTORY_SERVICE_PORT", "7")
    monkeypatch.setenv("ORDER_SERVICE_ADDR", "dns:///orders:1")
    settings = load(ConsumerSettings)
    assert settings.inventory_service_addr == "localhost:7"
    assert settings.order_service_addr == "dns:///orders:1"


def test_the_broker_is_expected_on_this_machine() -> None:
    assert load(ProducerSettings).rabbitmq_url == "amqp://guest:guest@localhost:5672/"
    assert load(ConsumerSettings).rabbitmq_url == "amqp://guest:guest@localhost:5672/"


@pytest.mark.parametrize(
    "url", ["amqp://", "amqps:///", "amqp://guest:guest@/", "http://localhost/"]
)
def test_an_invalid_broker_url_is_an_error_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    assert set(errors(ConsumerSettings)) == {"RABBITMQ_URL"}


def test_all_errors_are_reported_at_once_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND_HOST", "")
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    monkeypatch.setenv("ORDER_SERVICE_PORT", "0")
    monkeypatch.setenv("USER_SERVICE_PORT", "many")
    monkeypatch.setenv("BATCH_MAX_ITEMS", "1001")
    monkeypatch.setenv("ORDER_REPUBLISH_SECONDS", "0")
    monkeypatch.setenv("OUTBOX_RETENTION_SECONDS", "-1")
    found = errors(OrderSettings)
    assert {
        "ORDER_DATABASE_URL",
        "BIND_HOST",
        "LOG_LEVEL",
        "ORDER_SERVICE_PORT",
        "USER_SERVICE_PORT",
        "BATCH_MAX_ITEMS",
        "ORDER_REPUBLISH_SECONDS",
        "OUTBOX_RETENTION_SECONDS",
    } <= found.keys()


def test_one_error_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_DATABASE_URL", URL)
    monkeypatch.setenv("USER_SERVICE_PORT", "many")
    assert errors(OrderSettings).keys() == {"USER_SERVICE_PORT"}


@pytest.mark.parametrize(
    ("cls", "variable", "value"),
    [
        (InventorySettings, "INVENTORY_DATABASE_URL", "sqlite:///x"),
        (InventorySettings, "INVENTORY_DATABASE_URL", "postgresql://localhost/x"),
        (OrderSettings, "ORDER_DATABASE_URL", ""),
        (ProducerSettings, "RABBITMQ_URL", "http://localhost"),
        (ConsumerSettings, "RABBITMQ_URL", ""),
        (ConsumerSettings, "BATCH_MAX_ITEMS", "0"),
        (ConsumerSettings, "ORDER_SERVICE_PORT", "65536"),
    ],
)
def test_an_invalid_value_is_an_error_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, cls: type[ServiceSettings], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert errors(cls).keys() == {variable}


def test_errors_do_not_contain_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY_DATABASE_URL", "mysql://shop:hunter2@localhost/x")
    assert "hunter2" not in str(errors(InventorySettings))
