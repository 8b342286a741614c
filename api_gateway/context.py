"""What handlers receive: the gateway's parts, and the request with its principal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from aiohttp import web

from api_gateway.access_tokens import AccessTokens, Principal
from api_gateway.clients.base import ServiceClient
from api_gateway.clients.inventory import InventoryClient
from api_gateway.clients.orders import OrderClient
from api_gateway.clients.users import UserClient
from api_gateway.problems import Problem
from api_gateway.rate_limits import RateLimits
from api_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that live as long as the process; `stopping` is set once it shuts down."""

    settings: Settings
    users: UserClient
    inventory: InventoryClient
    orders: OrderClient
    access_tokens: AccessTokens
    rate_limits: RateLimits
    stopping: asyncio.Event

    @property
    def dependencies(self) -> dict[str, ServiceClient]:
        """The clients of the services behind the gateway, by the service's name."""
        return {
            "user_service": self.users,
            "inventory_service": self.inventory,
            "order_service": self.orders,
        }


@asynccontextmanager
async def open_gateway(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Gateway]:
    """A gateway to the services at the addresses in `settings`; it connects when first needed."""
    gateway = Gateway(
        settings,
        UserClient(settings.user_service_addr),
        InventoryClient(settings.inventory_service_addr),
        OrderClient(
            settings.order_service_addr, settings.batch_max_items, settings.batch_linger_seconds
        ),
        AccessTokens(
            settings.jwt_secret.get_secret_value(), settings.jwt_private_key.get_secret_value()
        ),
        RateLimits(settings.login_rate, settings.login_failure_rate, settings.account_failure_rate),
        stopping,
    )
    try:
        yield gateway
    finally:
        for client in gateway.dependencies.values():
            await client.close()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request and its principal: the owner of its access token, or ANONYMOUS."""

    gateway: Gateway
    request: web.Request
    principal: Principal

    async def is_admin(self) -> bool:
        """Whether the principal is an administrator now; the token alone may be out of date."""
        principal = self.principal
        return principal.claims_admin and await self.gateway.users.is_admin(principal.user_id)

    async def require_admin(self) -> None:
        """Raise a problem (403) unless the principal is an administrator now."""
        if not await self.is_admin():
            raise Problem("forbidden", "Administrator role required.")

    @property
    def client_address(self) -> str:
        """The client's IP address: the peer's, or as the outermost trusted proxy saw it."""
        peer = self.request.remote or ""
        trusted_hops = self.gateway.settings.trusted_proxy_hops
        if not trusted_hops:
            return peer
        forwarded = ",".join(self.request.headers.getall("X-Forwarded-For", ())).split(",")
        address = forwarded[-min(trusted_hops, len(forwarded))].strip()
        try:
            return str(ip_address(address))
        except ValueError:
            return peer
