"""The gateway's settings: all errors at once, by name."""

import pytest

from api_gateway.settings import Settings
from service_kit.settings import SettingsError, load


def test_dependencies_are_on_this_machine_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JWT_SECRET", "s" * 32)
    monkeypatch.setenv("USER_SERVICE_PORT", "6001")
    monkeypatch.setenv("ORDER_SERVICE_ADDR", "dns:///orders:50051")
    settings = load(Settings)
    assert settings.user_service_addr == "localhost:6001"
    assert settings.inventory_service_addr == "localhost:50055"
    assert settings.order_service_addr == "dns:///orders:50051"


def test_all_errors_are_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "too short, and secret")
    monkeypatch.setenv("API_GATEWAY_PORT", "0")
    monkeypatch.setenv("LOGIN_RATE", "often")
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", "https://a.example, https://b.example/path")
    monkeypatch.setenv("METRICS_NETWORKS", "everywhere")
    with pytest.raises(SettingsError) as raised:
        load(Settings)
    reported = str(raised.value)
    for name in ("JWT_SECRET", "API_GATEWAY_PORT", "LOGIN_RATE", "CORS_ALLOWED_ORIGINS"):
        assert name in reported
    assert "METRICS_NETWORKS" in reported
    assert "too short, and secret" not in reported


def test_a_secret_is_required_unless_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_SECRET", raising=False)
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        load(Settings)
    monkeypatch.setenv("JWT_PRIVATE_KEY", "nonsense")
    with pytest.raises(SettingsError, match="JWT_PRIVATE_KEY"):
        load(Settings)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "s" * 32)
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", "https://a.example, http://localhost:3000")
    monkeypatch.setenv("METRICS_NETWORKS", "10.0.0.0/8")
    settings = load(Settings)
    assert settings.cors_allowed_origins == ("https://a.example", "http://localhost:3000")
    assert [str(network) for network in settings.metrics_networks] == ["10.0.0.0/8"]
