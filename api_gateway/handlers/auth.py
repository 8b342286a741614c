"""Accounts and tokens."""

from typing import Final

from aiohttp import web

from api_gateway import answers, schemas
from api_gateway.clients import Session
from api_gateway.gateway import Call
from api_gateway.replies import empty_reply, json_reply
from api_gateway.tokens import LIFETIME_SECONDS, Tokens

_SCHEME: Final = "Bearer"


async def register(call: Call, body: schemas.Registration) -> web.Response:
    """Open a customer's account."""
    await call.gateway.limits.registration(call.client_address, body.email)
    user = await call.gateway.users.register(body.email, body.password, body.name)
    return json_reply(user, 201)


async def login(call: Call, body: schemas.Credentials) -> web.Response:
    """Exchange e-mail and password for tokens."""
    async with call.gateway.limits.login(call.client_address, body.email):
        session = await call.gateway.users.authenticate(body.email, body.password)
    return json_reply(_token_pair(call.gateway.tokens, session))


async def refresh(call: Call, body: schemas.RefreshToken) -> web.Response:
    """Exchange a refresh token for new tokens; presenting one twice revokes its family."""
    session = await call.gateway.users.rotate(body.refresh_token)
    return json_reply(_token_pair(call.gateway.tokens, session))


async def logout(call: Call, body: schemas.RefreshToken) -> web.Response:
    """Revoke a refresh token and its family; access tokens live on until they expire."""
    await call.gateway.users.revoke(body.refresh_token)
    return empty_reply()


async def me(call: Call) -> web.Response:
    """Show the caller's account."""
    return json_reply(await call.gateway.users.get(call.caller.user_id))


def _token_pair(tokens: Tokens, session: Session) -> answers.TokenPair:
    return answers.TokenPair(
        access_token=tokens.issue(session.user["id"], session.user["role"]),
        token_type=_SCHEME,
        expires_in=LIFETIME_SECONDS,
        refresh_token=session.refresh_token,
    )
