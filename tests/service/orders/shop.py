"""Orders in every state, without a consumer: tests do what it would do."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from order_service.consistency.checks import run_checks
from order_service.consistency.clients import ReservationClient
from proto import inventory_pb2 as stock_pb
from proto import order_pb2 as pb
from tests.support.services import Inventory, Orders, ask

DEDUCTED = stock_pb.STOCK_UPDATE_OUTCOME_APPLIED


class Shop:
    """The services' stubs and databases, a customer and a product of which 1,000 are in stock."""

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
        result = await self.update(update)
        if result.outcome == stock_pb.STOCK_UPDATE_OUTCOME_CANCELLED:
            return
        confirmed = result.outcome == DEDUCTED
        await self.settle(
            order_id,
            pb.SETTLEMENT_OUTCOME_CONFIRMED if confirmed else pb.SETTLEMENT_OUTCOME_REJECTED,
            [
                pb.Shortage(product_id=s.product_id, requested=s.requested, available=s.available)
                for s in result.shortages
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


async def execute(engine: AsyncEngine, statement: str, **parameters: object) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), parameters)


async def one_of_each(shop: Shop) -> dict[str, str]:
    """Orders in every final state, and some that are unfinished; by name, their ids."""
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


async def violations(shop: Shop, reservations: ReservationClient, grace: float = 30.0) -> set[str]:
    """What the checks find, a line for each violation."""
    findings = await run_checks(
        shop.orders.engine,
        reservations,
        grace_seconds=grace,
        kept_seconds=3600,
        advance=lambda _: None,
    )
    return {
        f"{check.invariant} {finding.subject}: {finding.detail}"
        for check, found in findings.items()
        for finding in found
    }
