"""The statements of `repository` that are written in SQL, each atomic on its own."""

from sqlalchemy import text

# The end of each statement that begins with a CTE `changed (id, status)`: it stores the events of
# the orders that changed, and their history, in the same transaction as the change itself.
_WITH_EVENTS_AND_HISTORY = """
, events AS (
    INSERT INTO outbox (id, order_id, type, body, request_id, traceparent)
    SELECT event.* FROM unnest(
        CAST(:event_ids AS uuid[]), CAST(:event_orders AS uuid[]), CAST(:event_types AS text[]),
        CAST(:bodies AS bytea[]), CAST(:request_ids AS text[]), CAST(:traceparents AS text[])
    ) AS event (id, order_id, type, body, request_id, traceparent)
    JOIN changed ON changed.id = event.order_id
    RETURNING order_id, request_id
), history AS (
    INSERT INTO order_status_history (order_id, status, changed_at, request_id)
    SELECT id, status, CAST(:now AS timestamptz), nullif(request_id, '')
    FROM changed LEFT JOIN events ON events.order_id = changed.id
)
SELECT id FROM changed
"""

# An order whose (user, idempotency key) is taken is left out, with its items and its event.
_INSERT = """
WITH changed AS (
    INSERT INTO orders (id, user_id, status, total_cents, idempotency_key, fingerprint,
                        next_republish_at, created_at, updated_at)
    SELECT new.id, new.user_id, 'PENDING', new.total_cents, new.key, new.fingerprint,
           CAST(:next_republish_at AS timestamptz),
           CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:user_ids AS bigint[]), CAST(:totals AS bigint[]),
        CAST(:keys AS text[]), CAST(:fingerprints AS bytea[])
    ) AS new (id, user_id, total_cents, key, fingerprint)
    ON CONFLICT (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id, status
), items AS (
    INSERT INTO order_items (order_id, position, product_id, name, quantity, unit_price_cents)
    SELECT item.* FROM unnest(
        CAST(:item_orders AS uuid[]), CAST(:positions AS smallint[]),
        CAST(:product_ids AS bigint[]), CAST(:names AS text[]),
        CAST(:quantities AS bigint[]), CAST(:prices AS bigint[])
    ) AS item (order_id, position, product_id, name, quantity, unit_price_cents)
    JOIN changed ON changed.id = item.order_id
)
"""

# Locked by ascending id, so that settlements of the same orders wait and cannot deadlock.
_SETTLE = """
WITH locked AS MATERIALIZED (
    SELECT id FROM orders WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'PENDING'
    ORDER BY id FOR UPDATE
), changed AS (
    UPDATE orders SET status = settled.status, shortages = CAST(settled.shortages AS jsonb),
                      next_republish_at = NULL, updated_at = CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:statuses AS text[]), CAST(:shortages AS text[])
    ) AS settled (id, status, shortages)
    JOIN locked ON locked.id = settled.id
    WHERE orders.id = settled.id
    RETURNING orders.id, orders.status
)
"""

_CANCEL = """
WITH changed AS (
    UPDATE orders SET status = 'CANCELLED', republish_count = 0,
                      next_republish_at = CAST(:next_republish_at AS timestamptz),
                      updated_at = CAST(:now AS timestamptz)
    WHERE id = CAST(:id AS uuid) AND status IN ('PENDING', 'CONFIRMED')
    RETURNING id, status
)
"""

INSERT_ORDERS = text(_INSERT + _WITH_EVENTS_AND_HISTORY)
SETTLE_ORDERS = text(_SETTLE + _WITH_EVENTS_AND_HISTORY)
CANCEL_ORDER = text(_CANCEL + _WITH_EVENTS_AND_HISTORY)

RELEASE_ORDERS = text("""
UPDATE orders SET next_republish_at = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'CANCELLED'
""")

# Rows that another republisher holds are skipped. An order whose event is still unsent needs no
# second one: it is only rescheduled.
DEFER_OVERDUE = text("""
WITH again AS (
    SELECT id FROM orders WHERE next_republish_at <= now() AND republish_count > 0
    ORDER BY next_republish_at LIMIT :max_unanswered FOR UPDATE SKIP LOCKED
), first AS (
    SELECT id FROM orders WHERE next_republish_at <= now() AND republish_count = 0
    ORDER BY next_republish_at LIMIT greatest(0, :max_unanswered - (
        SELECT count(*) FROM orders WHERE next_republish_at IS NOT NULL AND republish_count > 0
            AND republish_count <= CAST(:fixed_interval_attempts AS integer)))
    FOR UPDATE SKIP LOCKED
), overdue AS (
    SELECT id, EXISTS (
        SELECT FROM outbox WHERE outbox.order_id = due.id AND outbox.sent_at IS NULL) AS unsent
    FROM (SELECT id FROM again UNION ALL SELECT id FROM first) AS due
), deferred AS (
    UPDATE orders SET
        republish_count = republish_count + CASE WHEN unsent THEN 0 ELSE 1 END,
        next_republish_at = now() + least(
            make_interval(secs => CAST(:interval_seconds AS double precision)) * power(2, least(
                20, greatest(0, republish_count - CAST(:fixed_interval_attempts AS integer)))),
            make_interval(secs => CAST(:max_interval_seconds AS double precision)))
    FROM overdue WHERE orders.id = overdue.id
)
SELECT id FROM overdue WHERE NOT unsent
""")
