"""A small catalogue of products to try the system with."""

import grpc

from launcher.errors import LauncherError
from proto import inventory_pb2, inventory_pb2_grpc

_DEADLINE_SECONDS = 10

CATALOGUE = {
    1: ("Mechanical keyboard", "Tenkeyless, hot-swappable switches", 8_900, 1_000),
    2: ("Wireless mouse", "Silent buttons, three-year battery", 2_450, 1_000),
    3: ("USB-C dock", "Two displays, five ports, 100 W", 14_900, 250),
    4: ("27-inch monitor", "4K, USB-C with power delivery", 38_900, 120),
    5: ("Laptop stand", "Folding, aluminium", 3_995, 400),
    6: ("Webcam", "1080p with a privacy shutter", 5_900, 300),
    7: ("Noise-cancelling headphones", "Over-ear, 40 hours", 19_900, 150),
    8: ("Desk lamp", "Dimmable, warm to cold white", 4_500, 500),
    9: ("Cable set", "USB-C, USB-A and HDMI, 2 m each", 1_999, 2_000),
    10: ("Office chair", "Adjustable in five ways", 27_500, 60),
    101: ("Laptop", "14 inches, 16 GB of memory, 512 GB of storage", 50_000, 500),
    102: ("Tablet", "11 inches, with a pen", 34_950, 200),
}
"""Name, description, price in cents and stock of each product, by id."""


def create(inventory_address: str) -> int:
    """Create the products that do not exist yet; return how many were created."""
    created = 0
    with grpc.insecure_channel(inventory_address) as channel:
        inventory = inventory_pb2_grpc.InventoryServiceStub(channel)
        for product_id, (name, description, price_cents, stock) in CATALOGUE.items():
            product = inventory_pb2.Product(
                name=name, description=description, price_cents=price_cents, stock=stock
            )
            request = inventory_pb2.CreateProductRequest(product=product, product_id=product_id)
            try:
                inventory.CreateProduct(request, timeout=_DEADLINE_SECONDS)
                created += 1
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                    raise LauncherError(f"the demo catalogue failed: {error.details()}") from error
    return created
