"""The system as users start it: `./start-services.sh`, and kill -9 by the pids that it prints."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.harness import SERVICES, START_SECONDS, Shop
from tests.faults.invariants import broken
from tests.faults.load import Load
from tests.faults.store import Store
from tests.support.system import System, running

pytestmark = pytest.mark.whole_matrix

KILLING_SECONDS = 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("started") / "run") as started:
        yield started


@pytest.mark.parametrize(
    "victims", [SERVICES, ("postgres", "rabbitmq")], ids=["services", "stores"]
)
async def test_what_the_launcher_started_is_killed_at_random(
    system: System, tmp_path: Path, seed: str, victims: tuple[str, ...]
) -> None:
    environment, told = system.environment, system.told
    async with httpx.AsyncClient(base_url=system.gateway_url, timeout=30, trust_env=False) as http:
        shop = Shop(
            folder=tmp_path,
            users=Store(told["USER_DATABASE_URL"]),
            inventory=Store(told["INVENTORY_DATABASE_URL"]),
            orders=Store(told["ORDER_DATABASE_URL"]),
            broker=system.broker,
            children={},
            links={},
            gateway_urls=[system.gateway_url],
            http=http,
            logs=[system.run_dir / "logs" / f"{service}.log" for service in SERVICES],
            account=(environment["ADMIN_EMAIL"], environment["ADMIN_PASSWORD"]),
        )
        load = await Load.of(shop, f"{seed} as started {victims}", buyers=4)
        load.gateway_dies = "api_gateway" in victims
        chance, kills = load.chance("killer"), 0
        async with load.going_on():
            end = time.monotonic() + KILLING_SECONDS
            while time.monotonic() < end:
                victim = chance.choice(victims)
                _, pid = (await system.status())[victim]
                os.kill(pid, signal.SIGKILL)
                kills += 1
                await system.restarted(victim, pid)
                await asyncio.sleep(chance.uniform(0.5, 3.0))
            healed_at = time.monotonic() + START_SECONDS
        await system.ready()
        assert load.accepted
        assert await broken(shop, load, healed_at, faults=kills) == []
