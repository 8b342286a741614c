"""The client of user_service."""

from dataclasses import dataclass

from api_gateway import converters
from api_gateway.clients.base import CALL_SECONDS, ServiceClient
from api_gateway.schemas import responses
from proto import user_pb2
from proto.user_pb2_grpc import UserServiceStub
from service_kit.errors import NotFound
from service_kit.grpc.client import call

PASSWORD_CALL_SECONDS = 10.0
"""Deadline of calls that hash a password, which is slow on purpose."""


@dataclass(frozen=True, slots=True)
class Session:
    """An authenticated user and their refresh token."""

    user: responses.User
    refresh_token: str


class UserClient(ServiceClient):
    """Calls user_service."""

    def __init__(self, address: str) -> None:
        idempotent = ("GetUser", "RevokeRefreshToken")
        super().__init__(address, user_pb2.DESCRIPTOR, "UserService", idempotent)
        self._stub = UserServiceStub(self._channel)

    async def register_user(self, email: str, password: str, name: str) -> responses.User:
        """The new account; AlreadyExists (EMAIL_TAKEN)."""
        request = user_pb2.RegisterUserRequest(email=email, password=password, name=name)
        user = await call(self._stub.RegisterUser, request, timeout=PASSWORD_CALL_SECONDS)
        return converters.to_user(user)

    async def authenticate(self, email: str, password: str) -> Session:
        """A session for e-mail and password; Unauthenticated (INVALID_CREDENTIALS)."""
        request = user_pb2.AuthenticateRequest(email=email, password=password)
        return _to_session(
            await call(self._stub.Authenticate, request, timeout=PASSWORD_CALL_SECONDS)
        )

    async def rotate_refresh_token(self, refresh_token: str) -> Session:
        """A session with the token's successor; Unauthenticated (INVALID_REFRESH_TOKEN)."""
        request = user_pb2.RotateRefreshTokenRequest(refresh_token=refresh_token)
        return _to_session(await call(self._stub.RotateRefreshToken, request, timeout=CALL_SECONDS))

    async def revoke_refresh_token(self, refresh_token: str) -> None:
        """Revoke a refresh token's family; Unauthenticated (INVALID_REFRESH_TOKEN)."""
        request = user_pb2.RevokeRefreshTokenRequest(refresh_token=refresh_token)
        await call(self._stub.RevokeRefreshToken, request, timeout=CALL_SECONDS)

    async def get_user(self, user_id: int) -> responses.User:
        """The account; NotFound."""
        request = user_pb2.GetUserRequest(user_id=user_id)
        return converters.to_user(await call(self._stub.GetUser, request, timeout=CALL_SECONDS))

    async def is_admin(self, user_id: int) -> bool:
        """Whether the account is active and has the administrator role now."""
        try:
            user = await self.get_user(user_id)
        except NotFound:
            return False
        return user["active"] and user["role"] == "admin"


def _to_session(response: user_pb2.AuthenticateResponse) -> Session:
    return Session(converters.to_user(response.user), response.refresh_token)
