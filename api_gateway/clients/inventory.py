"""The client of inventory_service."""

from google.protobuf.field_mask_pb2 import FieldMask

from api_gateway import converters
from api_gateway.clients.base import CALL_SECONDS, ServiceClient
from api_gateway.schemas import requests, responses
from proto import inventory_pb2
from proto.inventory_pb2_grpc import InventoryServiceStub
from service_kit.errors import NotFound
from service_kit.grpc.client import call

_IDEMPOTENT = ("GetProduct", "ListProducts", "UpdateProduct", "CheckStock", "ListStockMovements")


class InventoryClient(ServiceClient):
    """Calls inventory_service."""

    def __init__(self, address: str) -> None:
        super().__init__(address, inventory_pb2.DESCRIPTOR, "InventoryService", _IDEMPOTENT)
        self._stub = InventoryServiceStub(self._channel)

    async def create_product(self, new: requests.NewProduct) -> responses.Product:
        """The new product; AlreadyExists (PRODUCT_EXISTS)."""
        product = inventory_pb2.Product(
            name=new.name, description=new.description, price_cents=new.price, stock=new.stock
        )
        request = inventory_pb2.CreateProductRequest(product=product, product_id=new.id)
        response = await call(self._stub.CreateProduct, request, timeout=CALL_SECONDS)
        return converters.to_product(response)

    async def get_product(self, product_id: int) -> responses.Product:
        """The product; NotFound."""
        request = inventory_pb2.GetProductRequest(product_id=product_id)
        response = await call(self._stub.GetProduct, request, timeout=CALL_SECONDS)
        return converters.to_product(response)

    async def list_products(self, query: requests.ProductQuery) -> responses.ProductPage:
        """A page of the products whose name contains the query."""
        request = inventory_pb2.ListProductsRequest(
            page_size=query.page_size, page_token=query.page_token, query=query.query
        )
        response = await call(self._stub.ListProducts, request, timeout=CALL_SECONDS)
        return responses.ProductPage(
            products=[converters.to_product(product) for product in response.products],
            next_page_token=response.next_page_token,
        )

    async def update_product(
        self, product_id: int, changes: requests.ProductChanges
    ) -> responses.Product:
        """The product after the changes; NotFound."""
        product = inventory_pb2.Product(
            id=product_id,
            name=changes.name,
            description=changes.description,
            price_cents=changes.price,
        )
        paths = ["price_cents" if f == "price" else f for f in sorted(changes.model_fields_set)]
        request = inventory_pb2.UpdateProductRequest(
            product=product, update_mask=FieldMask(paths=paths)
        )
        response = await call(self._stub.UpdateProduct, request, timeout=CALL_SECONDS)
        return converters.to_product(response)

    async def check_stock(self, product_id: int, quantity: int) -> responses.Availability:
        """Whether the stock covers the quantity; NotFound."""
        item = inventory_pb2.StockItem(product_id=product_id, quantity=quantity)
        request = inventory_pb2.CheckStockRequest(items=[item])
        response = await call(self._stub.CheckStock, request, timeout=CALL_SECONDS)
        check = response.checks[0]
        if not check.found:
            raise NotFound("PRODUCT_NOT_FOUND", f"Product {product_id} does not exist.")
        return responses.Availability(available=check.available, stock=check.stock)

    async def adjust_stock(self, product_id: int, delta: int, reason: str) -> responses.Stock:
        """The stock after a manual change; FailedPrecondition (INSUFFICIENT_STOCK), NotFound."""
        request = inventory_pb2.AdjustStockRequest(
            product_id=product_id, delta=delta, reason=reason
        )
        response = await call(self._stub.AdjustStock, request, timeout=CALL_SECONDS)
        return responses.Stock(product_id=response.product_id, stock=response.stock)

    async def list_stock_movements(
        self, product_id: int, page: requests.PageQuery
    ) -> responses.StockMovementPage:
        """A page of a product's stock ledger; NotFound."""
        request = inventory_pb2.ListStockMovementsRequest(
            product_id=product_id, page_size=page.page_size, page_token=page.page_token
        )
        response = await call(self._stub.ListStockMovements, request, timeout=CALL_SECONDS)
        return responses.StockMovementPage(
            movements=[converters.to_stock_movement(movement) for movement in response.movements],
            next_page_token=response.next_page_token,
        )
