"""UserService over gRPC: decode, operate, encode."""

import datetime as dt
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpc.aio import ServicerContext
from sqlalchemy.ext.asyncio import AsyncEngine

from proto import user_pb2 as pb
from proto.user_pb2_grpc import UserServiceServicer
from service_kit.grpc.converters import to_timestamp
from user_service import operations
from user_service.domain import Role, Session, User
from user_service.passwords import Passwords

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["UserService"].full_name

Context = ServicerContext[Any, Any]

_ROLES = {Role.CUSTOMER: pb.ROLE_CUSTOMER, Role.ADMIN: pb.ROLE_ADMIN}


class UserServicer(UserServiceServicer):
    """Serves the accounts in `engine`'s database; `token_lifetime` is that of refresh tokens."""

    def __init__(
        self, engine: AsyncEngine, passwords: Passwords, token_lifetime: dt.timedelta
    ) -> None:
        self._engine = engine
        self._passwords = passwords
        self._token_lifetime = token_lifetime

    async def RegisterUser(self, request: pb.RegisterUserRequest, context: Context) -> pb.User:
        return _user(
            await operations.register_user(
                self._engine,
                self._passwords,
                email=request.email,
                password=request.password,
                name=request.name,
            )
        )

    async def Authenticate(
        self, request: pb.AuthenticateRequest, context: Context
    ) -> pb.AuthenticateResponse:
        return _session(
            await operations.authenticate(
                self._engine,
                self._passwords,
                self._token_lifetime,
                email=request.email,
                password=request.password,
            )
        )

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.User:
        return _user(await operations.get_user(self._engine, request.user_id))

    async def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: Context
    ) -> pb.BatchGetUsersResponse:
        found = await operations.batch_get_users(self._engine, list(request.user_ids))
        return pb.BatchGetUsersResponse(users=map(_user, found))

    async def ListUsers(
        self, request: pb.ListUsersRequest, context: Context
    ) -> pb.ListUsersResponse:
        page, token = await operations.list_users(
            self._engine, size=request.page_size, token=request.page_token
        )
        return pb.ListUsersResponse(users=map(_user, page), next_page_token=token)

    async def RotateRefreshToken(
        self, request: pb.RotateRefreshTokenRequest, context: Context
    ) -> pb.AuthenticateResponse:
        return _session(
            await operations.rotate_refresh_token(
                self._engine, self._token_lifetime, request.refresh_token
            )
        )

    async def RevokeRefreshToken(
        self, request: pb.RevokeRefreshTokenRequest, context: Context
    ) -> Empty:
        await operations.revoke_refresh_token(self._engine, request.refresh_token)
        return Empty()


def _session(session: Session) -> pb.AuthenticateResponse:
    return pb.AuthenticateResponse(
        user=_user(session.user),
        refresh_token=session.refresh_token,
        refresh_expire_time=to_timestamp(session.expires_at),
    )


def _user(user: User) -> pb.User:
    return pb.User(
        id=user.id,
        email=user.email,
        name=user.name,
        role=_ROLES[user.role],
        active=user.active,
        create_time=to_timestamp(user.created_at),
    )
