"""The system as users start it (`./start-services.sh`), with kill -9 of its programs."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.buyers import Buyers
from tests.faults.checks.invariants import violations_after
from tests.faults.shop.shop import START_SECONDS, Shop
from tests.faults.shop.topology import SERVICES
from tests.support.system import System, start_system

pytestmark = pytest.mark.whole_matrix

KILLING_SECONDS = 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with start_system(tmp_path_factory.mktemp("supervised") / "run") as started:
        yield started


@pytest.mark.parametrize(
    "victims", [SERVICES, ("postgres", "rabbitmq")], ids=["services", "infrastructure"]
)
async def test_supervised_programs_are_killed_at_random(
    system: System, tmp_path: Path, seed: str, victims: tuple[str, ...]
) -> None:
    environment = system.environment
    async with httpx.AsyncClient(base_url=system.gateway_url, timeout=30, trust_env=False) as http:
        shop = Shop(
            folder=tmp_path,
            users=system.users,
            inventory=system.inventory,
            orders=system.orders,
            broker=system.broker,
            processes={},
            links={},
            gateway_urls=[system.gateway_url],
            http=http,
            logs=[system.run_dir / "logs" / f"{service}.log" for service in SERVICES],
            admin_login=(environment["ADMIN_EMAIL"], environment["ADMIN_PASSWORD"]),
        )
        buyers = await Buyers.register(shop, f"{seed} supervised {victims}", buyers=4)
        buyers.gateway_fails = "api_gateway" in victims
        rng, kills = buyers.random_for("kills"), 0
        async with buyers.ordering():
            end = time.monotonic() + KILLING_SECONDS
            while time.monotonic() < end:
                victim = rng.choice(victims)
                _, pid = (await system.status())[victim]
                os.kill(pid, signal.SIGKILL)
                kills += 1
                await system.wait_for_restart(victim, pid)
                await asyncio.sleep(rng.uniform(0.5, 3.0))
            healed_at = time.monotonic() + START_SECONDS
        await system.wait_until_ready()
        assert buyers.accepted
        assert await violations_after(shop, buyers, healed_at, faults=kills) == []
