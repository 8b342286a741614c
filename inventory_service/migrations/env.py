from inventory_service.models import metadata
from service_kit.postgres.migrations import run_env

run_env(metadata)
