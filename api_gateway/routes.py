"""The one table of routes: what is served, to whom, what it takes and how it answers."""

from functools import partial
from typing import Any

import orjson

from api_gateway import answers, schemas
from api_gateway.handlers import auth, operational, orders, products, short_names
from api_gateway.openapi import describe
from api_gateway.routing import Access, Route

_PLACING: dict[str, Any] = {
    "problems": (
        "insufficient_stock",
        "price_changed",
        "idempotency_key_reused",
        "unknown_product",
        "invalid_parameter",
        "forbidden",
    ),
    "request_headers": {
        "Idempotency-Key": {
            "description": "Makes trying again safe: for the same key and order the answer is "
            "the order placed first.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        },
        "Prefer": {
            "description": "`wait=N` (RFC 7240): answer once the order is settled, or after N "
            "seconds, 30 at most.",
            "schema": {"type": "string"},
            "example": "wait=1",
        },
    },
    "answer_headers": {"Location": "Where the order is."},
}
_LOCATION = {"Location": "Where the product is."}

_API = (
    Route("POST", "/v1/auth/register", auth.register, answers.User, 201,
          accepts=schemas.Registration, problems=("email_taken", "rate_limited")),
    Route("POST", "/v1/auth/login", auth.login, answers.TokenPair,
          accepts=schemas.Credentials, problems=("invalid_credentials", "rate_limited")),
    Route("POST", "/v1/auth/refresh", auth.refresh, answers.TokenPair,
          accepts=schemas.RefreshToken, problems=("invalid_refresh_token",)),
    Route("POST", "/v1/auth/logout", auth.logout, None, 204,
          accepts=schemas.RefreshToken, problems=("invalid_refresh_token",)),
    Route("GET", "/v1/users/me", auth.me, answers.User,
          access=Access.USER, problems=("not_found",)),
    Route("GET", "/v1/products", products.list_products, answers.ProductPage,
          accepts=schemas.ProductQuery, problems=("invalid_page_token",)),
    Route("GET", "/v1/products/{product_id}", products.get_product, answers.Product,
          problems=("not_found",)),
    Route("POST", "/v1/products", products.create_product, answers.Product, 201,
          access=Access.ADMIN, accepts=schemas.NewProduct, problems=("product_exists",),
          answer_headers=_LOCATION),
    Route("PATCH", "/v1/products/{product_id}", products.update_product, answers.Product,
          access=Access.ADMIN, accepts=schemas.ProductChanges, problems=("not_found",)),
    Route("POST", "/v1/products/{product_id}/stock-adjustments", products.adjust_stock,
          answers.Stock, 201, access=Access.ADMIN, accepts=schemas.StockAdjustment,
          problems=("not_found", "insufficient_stock")),
    Route("GET", "/v1/products/{product_id}/stock-movements", products.list_stock_movements,
          answers.StockMovementPage, access=Access.ADMIN, accepts=schemas.Page,
          problems=("not_found", "invalid_page_token")),
    Route("POST", "/v1/orders", orders.create_order, answers.Order, 201,
          access=Access.USER, accepts=schemas.NewOrder, **_PLACING),
    Route("GET", "/v1/orders", orders.list_orders, answers.OrderPage,
          access=Access.USER, accepts=schemas.OrderQuery, problems=("invalid_page_token",)),
    Route("GET", "/v1/orders/{order_id}", orders.get_order, answers.Order,
          access=Access.USER, problems=("not_found",)),
    Route("POST", "/v1/orders/{order_id}/cancel", orders.cancel_order, answers.Order,
          access=Access.USER, problems=("not_found", "not_cancellable")),
    Route("POST", "/register", auth.register, answers.User, 201,
          accepts=schemas.Registration, problems=("email_taken", "rate_limited")),
    Route("POST", "/login", auth.login, answers.TokenPair,
          accepts=schemas.Credentials, problems=("invalid_credentials", "rate_limited")),
    Route("POST", "/check_stock", short_names.check_stock, answers.Availability,
          accepts=schemas.StockItem, problems=("not_found",)),
    Route("POST", "/update_stock", short_names.update_stock, answers.Stock,
          access=Access.ADMIN, accepts=schemas.StockItem,
          problems=("not_found", "insufficient_stock")),
    Route("POST", "/create_order", short_names.create_order, answers.Order, 201,
          access=Access.USER, accepts=schemas.OrderForUser, **_PLACING),
    Route("GET", "/healthz", operational.healthz, answers.Health, neighbours=False),
    Route("GET", "/readyz", operational.readyz, answers.Readiness, problems=("not_ready",),
          neighbours=False),
)  # fmt: skip
"""What /openapi.json describes. Paths are those of OpenAPI, which aiohttp reads alike."""

_DESCRIPTION = orjson.dumps(describe(_API))

ROUTES = (
    *_API,
    Route("GET", "/metrics", operational.metrics),
    Route("GET", "/openapi.json", partial(operational.openapi, _DESCRIPTION)),
    Route("GET", "/docs", operational.docs),
    Route("GET", "/docs/{name}", operational.docs_asset),
)
