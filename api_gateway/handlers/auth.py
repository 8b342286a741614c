"""Registration, login and tokens."""

from typing import Final

from aiohttp import web

from api_gateway.access_tokens import LIFETIME_SECONDS, AccessTokens
from api_gateway.clients.users import Session
from api_gateway.context import RequestContext
from api_gateway.http import empty_response, json_response
from api_gateway.schemas import requests, responses

_SCHEME: Final = "Bearer"


async def register(context: RequestContext, body: requests.Registration) -> web.Response:
    """Register a customer account."""
    await context.gateway.rate_limits.count_registration(context.client_address, body.email)
    user = await context.gateway.users.register_user(body.email, body.password, body.name)
    return json_response(user, 201)


async def login(context: RequestContext, body: requests.Credentials) -> web.Response:
    """Exchange e-mail and password for tokens."""
    gateway = context.gateway
    async with gateway.rate_limits.login_attempt(context.client_address, body.email):
        session = await gateway.users.authenticate(body.email, body.password)
    return json_response(_token_pair(gateway.access_tokens, session))


async def refresh(context: RequestContext, body: requests.RefreshToken) -> web.Response:
    """Exchange a refresh token for new tokens; using one twice revokes its family."""
    session = await context.gateway.users.rotate_refresh_token(body.refresh_token)
    return json_response(_token_pair(context.gateway.access_tokens, session))


async def logout(context: RequestContext, body: requests.RefreshToken) -> web.Response:
    """Revoke a refresh token and its family; access tokens stay valid until they expire."""
    await context.gateway.users.revoke_refresh_token(body.refresh_token)
    return empty_response()


def _token_pair(access_tokens: AccessTokens, session: Session) -> responses.TokenPair:
    return responses.TokenPair(
        access_token=access_tokens.issue(session.user["id"], session.user["role"]),
        token_type=_SCHEME,
        expires_in=LIFETIME_SECONDS,
        refresh_token=session.refresh_token,
    )
