"""The audit of orders: against themselves, their events, and what inventory decided for them."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from order_service.audit import Books, run_audit
from order_service.auditor import Auditor
from order_service.clients import ReservationClient, open_inventory_channel
from proto import inventory_pb2 as stock_pb
from proto import order_pb2 as pb
from proto import user_pb2
from service_kit.consistency import Finding
from service_kit.errors import ServiceError, Unavailable
from tests.support.cli import CommandResult, run_command, url_of
from tests.support.services import Inventory, Orders, Users, ask
from tests.support.waiting import eventually, free_port

GRACE = 0.2
"""Seconds."""

TAKEN = stock_pb.STOCK_UPDATE_OUTCOME_APPLIED


class Shop:
    """The services' stubs and databases, a customer and some tea."""

    def __init__(self, orders: Orders, inventory: Inventory, customer: int, tea: int) -> None:
        self.orders, self.inventory, self.customer, self.tea = orders, inventory, customer, tea

    async def placed(self, quantity: int = 2) -> str:
        request = pb.CreateOrderRequest(
            user_id=self.customer,
            items=[pb.NewOrderItem(product_id=self.tea, quantity=quantity)],
        )
        return (await ask(self.orders.stub.CreateOrder, request)).id

    async def handled(self, order_id: str, quantity: int = 2) -> None:
        """What the consumer does with `order.created`."""
        update = stock_pb.StockUpdate(
            order_id=order_id,
            kind=stock_pb.STOCK_UPDATE_KIND_DEDUCT,
            items=[stock_pb.StockItem(product_id=self.tea, quantity=quantity)],
        )
        answer = await self.update(update)
        if answer.outcome == stock_pb.STOCK_UPDATE_OUTCOME_CANCELLED:
            return
        confirmed = answer.outcome == TAKEN
        await self.settle(
            order_id,
            pb.SETTLEMENT_OUTCOME_CONFIRMED if confirmed else pb.SETTLEMENT_OUTCOME_REJECTED,
            [
                pb.Shortage(product_id=s.product_id, requested=s.requested, available=s.available)
                for s in answer.shortages
            ],
        )

    async def settled(self, quantity: int = 2) -> str:
        order_id = await self.placed(quantity)
        await self.handled(order_id, quantity)
        return order_id

    async def cancel(self, order_id: str) -> None:
        await ask(self.orders.stub.CancelOrder, pb.CancelOrderRequest(order_id=order_id))

    async def released(self, order_id: str) -> None:
        """What the consumer does with `order.cancelled`."""
        kind = stock_pb.STOCK_UPDATE_KIND_RESTORE
        await self.update(stock_pb.StockUpdate(order_id=order_id, kind=kind))
        await self.settle(order_id, pb.SETTLEMENT_OUTCOME_RELEASED)

    async def rejected(self) -> str:
        order_id = await self.placed(900)
        await self.settled(900)
        await self.handled(order_id, 900)
        return order_id

    async def update(self, update: stock_pb.StockUpdate) -> stock_pb.StockUpdateResult:
        request = stock_pb.UpdateStockRequest(updates=[update])
        return (await ask(self.inventory.stub.UpdateStock, request)).results[0]

    async def settle(
        self,
        order_id: str,
        outcome: pb.SettlementOutcome.ValueType,
        shortages: list[pb.Shortage] | None = None,
        *,
        validate_only: bool = False,
    ) -> pb.SettlementResult:
        settlement = pb.Settlement(order_id=order_id, outcome=outcome, shortages=shortages)
        request = pb.SettleOrdersRequest(settlements=[settlement], validate_only=validate_only)
        return (await ask(self.orders.stub.SettleOrders, request)).results[0]


@pytest_asyncio.fixture
async def shop(orders: Orders, inventory: Inventory, users: Users) -> Shop:
    """A shop without orders."""
    await execute(orders.engine, "TRUNCATE orders, order_items, order_status_history, outbox")
    await execute(
        inventory.engine, "TRUNCATE products, stock_movements, reservations, audit.stock_balances"
    )
    email = f"{uuid.uuid4().hex}@example.org"
    request = user_pb2.RegisterUserRequest(email=email, password="correct horse", name="Ada")
    customer = (await ask(users.stub.RegisterUser, request)).id
    product = stock_pb.Product(name="Tea", price_cents=250, stock=1000)
    wanted = stock_pb.CreateProductRequest(product=product)
    tea = (await ask(inventory.stub.CreateProduct, wanted)).id
    return Shop(orders, inventory, customer, tea)


@pytest_asyncio.fixture
async def books(orders: Orders, inventory: Inventory) -> AsyncIterator[Books]:
    async with open_inventory_channel(inventory.address) as channel:
        yield Books(orders.engine, ReservationClient(channel))


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def audit(books: Books, grace: float = 30.0) -> set[str]:
    """What the audit finds, a line each."""
    findings = await run_audit(
        books, grace_seconds=grace, kept_seconds=3600, advance=lambda _: None
    )
    return {
        f"{rule.invariant} {finding.subject}: {finding.detail}"
        for rule, found in findings.items()
        for finding in found
    }


async def one_of_each(shop: Shop) -> dict[str, str]:
    """An order of every kind that there is at rest, and some that are under way."""
    confirmed = await shop.settled()
    returned = await shop.settled()
    await shop.cancel(returned)
    await shop.released(returned)
    overtaken = await shop.placed()
    await shop.cancel(overtaken)
    await shop.released(overtaken)
    await shop.handled(overtaken)
    leaving = await shop.settled()
    await shop.cancel(leaving)
    return {
        "confirmed": confirmed,
        "returned": returned,
        "leaving": leaving,
        "pending": await shop.placed(),
        "rejected": await shop.rejected(),
    }


async def test_the_audit_takes_none_of_the_ways_of_an_order_for_a_fault(
    shop: Shop, books: Books
) -> None:
    await one_of_each(shop)
    assert await audit(books) == set()


FAULTS = {
    "a confirmation without a deduction": (
        "orders",
        "UPDATE orders SET status = 'CONFIRMED', next_offer_at = NULL WHERE id = :pending",
        "I3 order {pending}: CONFIRMED, but inventory never decided for it",
    ),
    "a rejected order that was confirmed": (
        "orders",
        "UPDATE orders SET status = 'CONFIRMED' WHERE id = :rejected",
        "I3 order {rejected}: CONFIRMED (900 of product {tea}), inventory: REJECTED (nothing)",
    ),
    "a deduction of another quantity": (
        "inventory",
        "UPDATE stock_movements SET delta = -3 WHERE order_id = :confirmed",
        (
            "I3 order {confirmed}: CONFIRMED (2 of product {tea}),"
            " inventory: DEDUCTED (3 of product {tea})"
        ),
    ),
    "a deduction applied twice": (
        "inventory",
        (
            "INSERT INTO stock_movements (product_id, kind, delta, order_id)"
            " SELECT product_id, kind, delta, order_id FROM stock_movements"
            " WHERE order_id = :confirmed"
        ),
        (
            "I3 order {confirmed}: CONFIRMED (2 of product {tea}),"
            " inventory: DEDUCTED (4 of product {tea})"
        ),
    ),
    "stock that a cancelled order still holds": (
        "orders",
        "UPDATE orders SET next_offer_at = NULL WHERE id = :leaving",
        "I3 order {leaving}: CANCELLED (nothing), inventory: DEDUCTED (2 of product {tea})",
    ),
    "an event that was lost": (
        "orders",
        "DELETE FROM outbox WHERE order_id = :pending",
        "I4 order {pending}: became PENDING without an event",
    ),
    "an outcome whose event was lost": (
        "orders",
        "DELETE FROM outbox WHERE order_id = :rejected AND type = 'order.rejected'",
        "I4 order {rejected}: became REJECTED without an event",
    ),
    "an outcome told twice": (
        "orders",
        (
            "INSERT INTO outbox (id, order_id, type, body)"
            " SELECT gen_random_uuid(), order_id, type, body FROM outbox"
            " WHERE order_id = :confirmed AND type = 'order.confirmed'"
        ),
        "I5 order {confirmed}: 2 times order.confirmed, order.confirmed",
    ),
    "two outcomes": (
        "orders",
        "INSERT INTO order_status_history VALUES (:confirmed, 'REJECTED', now())",
        "I5 order {confirmed}: order.confirmed, order.rejected",
    ),
    "a total that the items do not make": (
        "orders",
        "UPDATE orders SET total_cents = 499 WHERE id = :confirmed",
        "I3 order {confirmed}: total 499 cents, items 500",
    ),
    "an order without items": (
        "orders",
        "DELETE FROM order_items WHERE order_id = :confirmed",
        "I3 order {confirmed}: no items",
    ),
    "a status that came from nowhere": (
        "orders",
        "DELETE FROM order_status_history WHERE order_id = :returned AND status = 'CANCELLED'",
        "I3 order {returned}: CANCELLED is not in its history",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_audit_finds_and_names(shop: Shop, books: Books, fault: str) -> None:
    placed = await one_of_each(shop)
    where, statement, told = FAULTS[fault]
    used = {name: uuid.UUID(id_) for name, id_ in placed.items() if f":{name}" in statement}
    await execute((shop.orders if where == "orders" else shop.inventory).engine, statement, **used)
    assert told.format(tea=shop.tea, **placed) in await audit(books)


async def test_the_audit_finds_stock_that_is_held_for_an_order_nobody_placed(
    shop: Shop, books: Books
) -> None:
    stranger = str(uuid7())
    update = stock_pb.StockUpdate(
        order_id=stranger,
        kind=stock_pb.STOCK_UPDATE_KIND_DEDUCT,
        items=[stock_pb.StockItem(product_id=shop.tea, quantity=1)],
    )
    await shop.update(update)
    assert await audit(books) == set()  # the consumer is about to give it back
    (found,) = await audit(books, grace=0)
    assert found.startswith(f"I3 order {stranger}: is unknown, but holds stock since ")


async def test_the_audit_finds_what_is_late(shop: Shop, books: Books) -> None:
    order_id = await shop.placed()
    assert await audit(books) == set()
    await execute(
        shop.orders.engine,
        "UPDATE orders SET updated_at = updated_at - interval '40 seconds'",
    )
    await execute(
        shop.orders.engine,
        "UPDATE outbox SET created_at = created_at - interval '40 seconds',"
        " last_error = 'UNROUTABLE: no queue'",
    )
    order, event = sorted(await audit(books))
    assert order.startswith(f"I2 order {order_id}: PENDING for 40 s, its event waits: UNROUTABLE")
    assert event.startswith("I4 event ")
    assert f"order.created of order {order_id} waits for 40 s, refused: UNROUTABLE" in event


async def audit_tool(shop: Shop, *arguments: str, **environment: str) -> CommandResult:
    settings = {
        "ORDER_DATABASE_URL": url_of(shop.orders.engine),
        "INVENTORY_SERVICE_ADDR": shop.inventory.address,
    }
    return await run_command("order_service", "audit", *arguments, **(settings | environment))


async def test_the_tool_ends_with_0_if_all_is_well_and_with_1_and_tables_if_not(
    shop: Shop,
) -> None:
    placed = await one_of_each(shop)
    done = await audit_tool(shop)
    assert done.code == 0, done
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["0"] * 7
    await execute(shop.orders.engine, "UPDATE orders SET total_cents = 1")
    done = await audit_tool(shop, "--grace", "0")
    assert done.code == 1
    assert done.line("I3  order " + placed["confirmed"]).endswith("total 1 cents, items 500")
    assert "I2  order " + placed["pending"] in done.stdout


async def test_the_tool_ends_with_2_if_inventory_does_not_answer(shop: Shop) -> None:
    await shop.settled()
    done = await audit_tool(shop, INVENTORY_SERVICE_ADDR=f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert done.stderr.startswith("error: ")


@pytest.fixture
def watch(books: Books) -> Auditor:
    return Auditor(books, grace_seconds=GRACE, settling_seconds=0)


async def test_an_order_is_late_once_a_younger_one_was_settled_some_time_ago(
    shop: Shop, watch: Auditor
) -> None:
    late = await shop.placed()
    await shop.settled()
    (found,) = await eventually(watch.late_orders)
    assert found.subject == f"order {late}"
    await shop.handled(late)
    assert await watch.late_orders() == []


async def test_a_cancelled_order_is_late_while_its_stock_is_not_given_back(
    shop: Shop, watch: Auditor
) -> None:
    late = await shop.settled()
    await shop.cancel(late)
    await shop.settled()
    (found,) = await eventually(watch.late_orders)
    assert found.subject == f"order {late}"
    await shop.released(late)
    assert await watch.late_orders() == []


async def test_while_nothing_gets_through_nothing_is_late(shop: Shop, watch: Auditor) -> None:
    """As when the broker is away for long: the customers wait, and nothing is lost."""
    await shop.settled()
    waiting = [await shop.placed() for _ in range(3)]
    older = "UPDATE {table} SET {column} = {column} - interval '60 seconds'"
    for table, column in (
        ("orders", "updated_at"),
        ("orders", "created_at"),
        ("outbox", "created_at"),
    ):
        await execute(shop.orders.engine, older.format(table=table, column=column))
    assert await watch.late_orders() == []
    assert await watch.late_events() == []
    for order_id in waiting:
        await shop.handled(order_id)
        assert await watch.late_orders() == []


async def test_an_event_is_late_once_a_younger_one_was_published_some_time_ago(
    shop: Shop, watch: Auditor
) -> None:
    order_id = await shop.placed()
    await shop.placed()
    refused = "UPDATE outbox SET last_error = 'NACKED' WHERE order_id = :id"
    await execute(shop.orders.engine, refused, id=uuid.UUID(order_id))
    sent = "UPDATE outbox SET sent_at = now() WHERE order_id <> :id"
    await execute(shop.orders.engine, sent, id=uuid.UUID(order_id))
    (found,) = await eventually(watch.late_events)
    assert found.detail == f"order.created of order {order_id}: NACKED"
    await execute(shop.orders.engine, "UPDATE outbox SET sent_at = now()")
    assert await watch.late_events() == []


async def test_a_look_compares_the_orders_since_the_last_one_with_inventory(
    shop: Shop, watch: Auditor
) -> None:
    await one_of_each(shop)
    assert await watch.unequal_orders() == []
    order_id = await shop.settled()
    change = "UPDATE stock_movements SET delta = delta - :more WHERE order_id = :id"
    await execute(shop.inventory.engine, change, more=1, id=uuid.UUID(order_id))
    for _ in range(2):
        (found,) = await watch.unequal_orders()
        assert found.subject == f"order {order_id}"
    await execute(shop.inventory.engine, change, more=-1, id=uuid.UUID(order_id))
    assert await watch.unequal_orders() == []


async def test_a_look_waits_for_an_inventory_that_is_away(shop: Shop) -> None:
    async with open_inventory_channel(f"127.0.0.1:{free_port()}") as channel:
        watch = Auditor(Books(shop.orders.engine, ReservationClient(channel)), GRACE, 0)
        await shop.settled()
        with pytest.raises(Unavailable):
            await watch.unequal_orders()


async def test_no_look_at_orders_under_way_finds_anything(shop: Shop, books: Books) -> None:
    finished = asyncio.Event()
    found: list[Finding] = []

    async def shopper(number: int) -> None:
        for _ in range(12):
            order_id = await shop.placed(1)
            if number % 3 == 0:
                await asyncio.gather(shop.handled(order_id, 1), shop.cancel(order_id))
                await shop.released(order_id)
            elif number % 3 == 1:
                await shop.handled(order_id, 1)
                await shop.cancel(order_id)
                await shop.released(order_id)
            else:
                await shop.handled(order_id, 1)

    async def look() -> int:
        looks = 0
        watch = Auditor(books, grace_seconds=30, settling_seconds=0)
        while not finished.is_set():
            for each in watch.looks().values():
                found.extend(await each())
            looks += 1
        return looks

    looking = asyncio.create_task(look())
    auditing = asyncio.create_task(audit(books))
    await asyncio.gather(*(shopper(number) for number in range(9)))
    finished.set()
    assert await looking > 3
    assert found == []
    assert await auditing == set()
    assert await audit(books) == set()


async def test_a_dry_run_of_a_settlement_answers_like_it_and_changes_nothing(shop: Shop) -> None:
    order_id = await shop.placed()
    outcome = pb.SETTLEMENT_OUTCOME_CONFIRMED
    for _ in range(2):
        answer = await shop.settle(order_id, outcome, validate_only=True)
        assert answer.status == pb.ORDER_STATUS_CONFIRMED
        request = pb.GetOrderRequest(order_id=order_id)
        order = await ask(shop.orders.stub.GetOrder, request)
        assert order.status == pb.ORDER_STATUS_PENDING
    async with shop.orders.engine.connect() as connection:
        events = await connection.scalar(text("SELECT count(*) FROM outbox"))
    assert events == 1
    await shop.settle(order_id, outcome)
    answer = await shop.settle(order_id, pb.SETTLEMENT_OUTCOME_REJECTED, validate_only=True)
    assert answer.status == pb.ORDER_STATUS_CONFIRMED


async def test_reservations_can_be_read_by_order_and_page_by_page(shop: Shop) -> None:
    placed = await one_of_each(shop)
    stub = shop.inventory.stub
    request = stock_pb.BatchGetReservationsRequest(order_ids=[*placed.values(), str(uuid7())])
    answer = await ask(stub.BatchGetReservations, request)
    found = {each.order_id: each for each in answer.reservations}
    assert found.keys() == set(placed.values()) - {placed["pending"]}
    assert found[placed["rejected"]].shortages[0].requested == 900
    deltas = [each.delta for each in found[placed["returned"]].movements]
    assert deltas == [-2, 2]
    listed: list[str] = []
    page = stock_pb.ListReservationsRequest(page_size=2)
    while not listed or page.page_token:
        listing = await ask(stub.ListReservations, page)
        listed += [each.order_id for each in listing.reservations]
        page.page_token = listing.next_page_token
    assert set(listed) > found.keys()
    assert listed == sorted(listed)
    page = stock_pb.ListReservationsRequest(state=stock_pb.RESERVATION_STATE_REJECTED)
    (only,) = (await ask(stub.ListReservations, page)).reservations
    assert only.order_id == placed["rejected"]


async def test_a_wrong_request_for_reservations_is_refused(shop: Shop) -> None:
    nobody = str(uuid.UUID(int=0))
    for order_ids, reason in ((["x"], "INVALID_ORDER_ID"), ([nobody] * 1001, "TOO_MANY_ITEMS")):
        request = stock_pb.BatchGetReservationsRequest(order_ids=order_ids)
        with pytest.raises(ServiceError) as refusal:
            await ask(shop.inventory.stub.BatchGetReservations, request)
        assert refusal.value.reason == reason
    for listing, reason in (
        (stock_pb.ListReservationsRequest(page_token="x"), "INVALID_PAGE_TOKEN"),
        (stock_pb.ListReservationsRequest(page_size=-1), "INVALID_PAGE_SIZE"),
    ):
        with pytest.raises(ServiceError) as refusal:
            await ask(shop.inventory.stub.ListReservations, listing)
        assert refusal.value.reason == reason
