"""Settings from the environment: defaults, and every fault at once."""

import os
from importlib import import_module

import pytest

from consumer_service.settings import Settings as ConsumerSettings
from inventory_service.settings import Settings as InventorySettings
from order_service.settings import Settings as OrderSettings
from producer_service.settings import Settings as ProducerSettings
from service_kit import lifecycle
from service_kit.settings import ServiceSettings, SettingsError, load

URL = "postgresql+asyncpg://shop:secret@localhost/orders"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)


def faults(cls: type[ServiceSettings]) -> dict[str, str]:
    """What `load` complains of, by variable."""
    with pytest.raises(SettingsError) as refused:
        load(cls)
    return dict(line.split(": ", 1) for line in str(refused.value).splitlines())


def test_neighbours_are_looked_for_on_this_machine_at_their_usual_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORDER_DATABASE_URL", URL)
    settings = load(OrderSettings)
    assert settings.bind_host == "127.0.0.1"
    assert settings.order_service_port == 50051
    assert settings.user_service_addr == "localhost:50052"
    assert settings.inventory_service_addr == "localhost:50055"
    assert settings.producer_service_addr == "localhost:50054"


def test_a_neighbour_that_moved_is_found_by_its_port_or_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INVENTORY_SERVICE_PORT", "7")
    monkeypatch.setenv("ORDER_SERVICE_ADDR", "dns:///orders:1")
    settings = load(ConsumerSettings)
    assert settings.inventory_service_addr == "localhost:7"
    assert settings.order_service_addr == "dns:///orders:1"


def test_the_broker_is_looked_for_on_this_machine() -> None:
    assert load(ProducerSettings).rabbitmq_url == "amqp://guest:guest@localhost:5672/"
    assert load(ConsumerSettings).rabbitmq_url == "amqp://guest:guest@localhost:5672/"


@pytest.mark.parametrize(
    "url", ["amqp://", "amqps:///", "amqp://guest:guest@/", "http://localhost/"]
)
def test_a_broker_that_cannot_be_one_is_a_fault_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", url)
    assert set(faults(ConsumerSettings)) == {"RABBITMQ_URL"}


def test_all_faults_are_told_at_once_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND_HOST", "")
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    monkeypatch.setenv("ORDER_SERVICE_PORT", "0")
    monkeypatch.setenv("USER_SERVICE_PORT", "many")
    monkeypatch.setenv("BATCH_MAX_ITEMS", "1001")
    monkeypatch.setenv("ORDER_REOFFER_SECONDS", "0")
    monkeypatch.setenv("OUTBOX_RETENTION_SECONDS", "-1")
    found = faults(OrderSettings)
    assert {
        "ORDER_DATABASE_URL",
        "BIND_HOST",
        "LOG_LEVEL",
        "ORDER_SERVICE_PORT",
        "USER_SERVICE_PORT",
        "BATCH_MAX_ITEMS",
        "ORDER_REOFFER_SECONDS",
        "OUTBOX_RETENTION_SECONDS",
    } <= found.keys()


def test_one_fault_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_DATABASE_URL", URL)
    monkeypatch.setenv("USER_SERVICE_PORT", "many")
    assert faults(OrderSettings).keys() == {"USER_SERVICE_PORT"}


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
def test_a_wrong_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, cls: type[ServiceSettings], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert faults(cls).keys() == {variable}


def test_faults_do_not_tell_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY_DATABASE_URL", "mysql://shop:hunter2@localhost/x")
    assert "hunter2" not in str(faults(InventorySettings))


@pytest.mark.parametrize("name", ["inventory", "order"])
def test_a_service_without_its_settings_ends_with_2_and_names_them(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = f"{name}_service"
    monkeypatch.setattr("sys.argv", [service])
    cls = import_module(f"{service}.settings").Settings
    serve = import_module(f"{service}.__main__").serve
    assert lifecycle.run(service, cls, serve) == 2
    told = capsys.readouterr().err
    assert f"{service}: settings are missing or wrong" in told
    assert f"{name.upper()}_DATABASE_URL: Field required" in told


def test_an_unknown_command_is_refused_and_the_known_ones_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = import_module("inventory_service.__main__").serve
    monkeypatch.setattr("sys.argv", ["inventory_service", "drop"])
    assert lifecycle.run("inventory_service", InventorySettings, serve, migrate=serve) == 2
    assert "no command 'drop'; there is: migrate" in capsys.readouterr().err
