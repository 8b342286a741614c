"""The table of routes: what is served, to whom, what it reads and what it returns."""

import orjson

from api_gateway.endpoints import Access, RequestHeader, Route, with_body, with_query, without_input
from api_gateway.handlers import auth, legacy, orders, products, system, users
from api_gateway.openapi import describe
from api_gateway.schemas import requests, responses
from proto.limits import MAX_WAIT_SECONDS

_USER, _ADMIN = Access.USER, Access.ADMIN
_REGISTER_PROBLEMS = ("email_taken", "rate_limited")
_LOGIN_PROBLEMS = ("invalid_credentials", "rate_limited")
_REFRESH_PROBLEMS = ("invalid_refresh_token",)
_LIST_PROBLEMS = ("invalid_page_token",)
_PRODUCT_HEADERS = {"Location": "The path of the product."}
_ORDER_HEADERS = {"Location": "The path of the order."}
_ORDER_PROBLEMS = (
    "insufficient_stock",
    "price_changed",
    "idempotency_key_reused",
    "unknown_product",
    "invalid_parameter",
    "forbidden",
)
_ORDER_REQUEST_HEADERS = (
    RequestHeader(
        "Idempotency-Key",
        "Makes retries safe: for the same key and order, the order that was placed first is "
        "returned.",
        pattern="^[!-~]{1,255}$",
    ),
    RequestHeader(
        "Prefer",
        "`wait=N` (RFC 7240): respond once the order is settled or after N seconds, at most "
        f"{MAX_WAIT_SECONDS}.",
        example="wait=1",
    ),
)

API_ROUTES = (
    Route("POST", "/v1/auth/register", with_body(auth.register, requests.Registration),
          responses.User, 201, problems=_REGISTER_PROBLEMS),
    Route("POST", "/v1/auth/login", with_body(auth.login, requests.Credentials),
          responses.TokenPair, problems=_LOGIN_PROBLEMS),
    Route("POST", "/v1/auth/refresh", with_body(auth.refresh, requests.RefreshToken),
          responses.TokenPair, problems=_REFRESH_PROBLEMS),
    Route("POST", "/v1/auth/logout", with_body(auth.logout, requests.RefreshToken),
          None, 204, problems=_REFRESH_PROBLEMS),
    Route("GET", "/v1/users/me", without_input(users.me),
          responses.User, access=_USER, problems=("not_found",)),
    Route("GET", "/v1/products", with_query(products.list_products, requests.ProductQuery),
          responses.ProductPage, problems=_LIST_PROBLEMS),
    Route("GET", "/v1/products/{product_id}", without_input(products.get_product),
          responses.Product, problems=("not_found",)),
    Route("POST", "/v1/products", with_body(products.create_product, requests.NewProduct),
          responses.Product, 201, _ADMIN, ("product_exists",), response_headers=_PRODUCT_HEADERS),
    Route("PATCH", "/v1/products/{product_id}",
          with_body(products.update_product, requests.ProductChanges),
          responses.Product, access=_ADMIN, problems=("not_found",)),
    Route("POST", "/v1/products/{product_id}/stock-adjustments",
          with_body(products.adjust_stock, requests.StockAdjustment),
          responses.Stock, 201, _ADMIN, ("not_found", "insufficient_stock")),
    Route("GET", "/v1/products/{product_id}/stock-movements",
          with_query(products.list_stock_movements, requests.PageQuery),
          responses.StockMovementPage, access=_ADMIN, problems=("not_found", *_LIST_PROBLEMS)),
    Route("POST", "/v1/orders", with_body(orders.create_order, requests.NewOrder),
          responses.Order, 201, _USER, _ORDER_PROBLEMS, _ORDER_REQUEST_HEADERS, _ORDER_HEADERS),
    Route("GET", "/v1/orders", with_query(orders.list_orders, requests.OrderQuery),
          responses.OrderPage, access=_USER, problems=_LIST_PROBLEMS),
    Route("GET", "/v1/orders/{order_id}", without_input(orders.get_order),
          responses.Order, access=_USER, problems=("not_found",)),
    Route("POST", "/v1/orders/{order_id}/cancel", without_input(orders.cancel_order),
          responses.Order, access=_USER, problems=("not_found", "not_cancellable")),
    Route("POST", "/register", with_body(auth.register, requests.Registration),
          responses.User, 201, problems=_REGISTER_PROBLEMS),
    Route("POST", "/login", with_body(auth.login, requests.Credentials),
          responses.TokenPair, problems=_LOGIN_PROBLEMS),
    Route("POST", "/check_stock", with_body(legacy.check_stock, requests.StockItem),
          responses.Availability, problems=("not_found",)),
    Route("POST", "/update_stock", with_body(legacy.update_stock, requests.StockItem),
          responses.Stock, access=_ADMIN, problems=("not_found", "insufficient_stock")),
    Route("POST", "/create_order", with_body(legacy.create_order, requests.LegacyOrder),
          responses.Order, 201, _USER, _ORDER_PROBLEMS, _ORDER_REQUEST_HEADERS, _ORDER_HEADERS),
    Route("GET", "/healthz", without_input(system.healthz), responses.Health, calls_services=False),
    Route("GET", "/readyz", without_input(system.readyz),
          responses.Readiness, problems=("not_ready",), calls_services=False),
)  # fmt: skip
"""What /openapi.json describes. The syntax of paths is OpenAPI's, which aiohttp shares."""

_DOCUMENT = orjson.dumps(describe(API_ROUTES))

ROUTES = (
    *API_ROUTES,
    Route("GET", "/metrics", without_input(system.metrics)),
    Route("GET", "/openapi.json", without_input(system.openapi(_DOCUMENT))),
    Route("GET", "/docs", without_input(system.docs)),
    Route("GET", "/docs/{name}", without_input(system.docs_asset)),
)
