"""Getting and listing users."""

from typing import Any

import pytest
from sqlalchemy import event

from proto import user_pb2 as pb
from service_kit.errors import InvalidArgument, NotFound
from tests.service.users.user_service import UNKNOWN_ID, Service, refused


async def test_a_user_that_does_not_exist_is_not_found(service: Service) -> None:
    for user_id in (0, -1, UNKNOWN_ID):
        error = await refused(service, "GetUser", pb.GetUserRequest(user_id=user_id))
        assert isinstance(error, NotFound)
        assert error.reason == "USER_NOT_FOUND"


async def test_a_batch_has_each_user_that_exists_once_and_no_other(
    service: Service,
) -> None:
    first, second = await service.register(), await service.register()
    await service.close_account(second.id)
    ids = [second.id, UNKNOWN_ID, first.id, first.id, -5, 0]
    batch = await service.call("BatchGetUsers", pb.BatchGetUsersRequest(user_ids=ids))
    found = {user.id: user for user in batch.users}
    assert len(batch.users) == 2
    assert found[first.id] == first
    assert not found[second.id].active
    empty = await service.call("BatchGetUsers", pb.BatchGetUsersRequest())
    assert list(empty.users) == []


async def test_a_batch_of_1000_ids_is_one_statement_and_a_larger_one_is_refused(
    service: Service,
) -> None:
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    ids = range(UNKNOWN_ID, UNKNOWN_ID + 1000)
    event.listen(service.engine.sync_engine, "before_cursor_execute", record)
    try:
        await service.call("BatchGetUsers", pb.BatchGetUsersRequest(user_ids=ids))
    finally:
        event.remove(service.engine.sync_engine, "before_cursor_execute", record)
    assert len(statements) == 1
    request = pb.BatchGetUsersRequest(user_ids=[*ids, 1])
    error = await refused(service, "BatchGetUsers", request)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.metadata) == ("TOO_MANY_ITEMS", {"field": "user_ids"})


async def test_pages_list_all_users_by_ascending_id(service: Service) -> None:
    registered = [await service.register() for _ in range(5)]
    accounts, _ = await service.rows()
    listed: list[pb.User] = []
    token = ""
    while True:
        request = pb.ListUsersRequest(page_size=2, page_token=token)
        page = await service.call("ListUsers", request)
        listed.extend(page.users)
        token = page.next_page_token
        if not token:
            break
        assert len(page.users) == 2
    assert [user.id for user in listed] == [row.id for row in accounts]
    assert listed[-5:] == registered


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ListUsersRequest(page_size=-1), "INVALID_PAGE_SIZE"),
        (pb.ListUsersRequest(page_token="%%%"), "INVALID_PAGE_TOKEN"),
    ],
)
async def test_an_invalid_page_is_refused(
    service: Service, request_: pb.ListUsersRequest, reason: str
) -> None:
    assert (await refused(service, "ListUsers", request_)).reason == reason
