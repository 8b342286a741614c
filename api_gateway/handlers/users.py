"""User accounts."""

from aiohttp import web

from api_gateway.context import RequestContext
from api_gateway.http import json_response


async def me(context: RequestContext) -> web.Response:
    """Get the account of the authenticated user."""
    return json_response(await context.gateway.users.get_user(context.principal.user_id))
