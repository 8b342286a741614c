from service_kit.postgres.migrations import run_env
from user_service.tables import metadata

run_env(metadata)
