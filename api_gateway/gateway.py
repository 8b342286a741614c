"""What every handler has at hand: the neighbours, the rules, and the call it answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from aiohttp import web

from api_gateway.clients import InventoryClient, Neighbour, OrderClient, UserClient
from api_gateway.problems import Problem
from api_gateway.rate_limits import RateLimits
from api_gateway.settings import Settings
from api_gateway.tokens import Principal, Tokens


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that live as long as the process; `stopping` is set once it is to end."""

    settings: Settings
    users: UserClient
    inventory: InventoryClient
    orders: OrderClient
    tokens: Tokens
    limits: RateLimits
    stopping: asyncio.Event

    @property
    def neighbours(self) -> dict[str, Neighbour]:
        """The services behind the gateway, by name."""
        return {
            "user_service": self.users,
            "inventory_service": self.inventory,
            "order_service": self.orders,
        }


@asynccontextmanager
async def opened(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Gateway]:
    """A gateway to the neighbours that `settings` name; they need not be there yet."""
    gateway = Gateway(
        settings,
        UserClient(settings.user_service_addr),
        InventoryClient(settings.inventory_service_addr),
        OrderClient(
            settings.order_service_addr, settings.batch_max_items, settings.batch_linger_seconds
        ),
        Tokens(settings.jwt_secret.get_secret_value(), settings.jwt_private_key.get_secret_value()),
        RateLimits(settings.login_rate, settings.login_failure_rate, settings.account_failure_rate),
        stopping,
    )
    try:
        yield gateway
    finally:
        for neighbour in gateway.neighbours.values():
            await neighbour.close()


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and who sent it (nobody on paths that ask for no token)."""

    gateway: Gateway
    request: web.Request
    caller: Principal

    async def is_admin(self) -> bool:
        """Whether the caller is an administrator now; a token alone may be out of date."""
        return self.caller.claims_admin and await self.gateway.users.is_admin(self.caller.user_id)

    async def require_admin(self) -> None:
        """Refuse callers who are no administrators with 403."""
        if not await self.is_admin():
            raise Problem("forbidden", "this takes an administrator")

    @property
    def client_address(self) -> str:
        """The client's IP address, behind as many proxies as are trusted."""
        return client_address(self.request, self.gateway.settings.trusted_proxy_hops)


def client_address(request: web.Request, trusted_hops: int) -> str:
    """The address of the peer, or the one that the outermost trusted proxy saw."""
    peer = request.remote or ""
    if not trusted_hops:
        return peer
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
    address = forwarded[-min(trusted_hops, len(forwarded))].strip()
    try:
        return str(ip_address(address))
    except ValueError:
        return peer
