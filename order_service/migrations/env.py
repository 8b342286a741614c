from order_service.tables import metadata
from service_kit.postgres.migrations import run_env

run_env(metadata)
