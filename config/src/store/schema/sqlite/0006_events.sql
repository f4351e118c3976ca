-- Events of calls: the webhooks that hear of them, and what is on its way to each.

-- How many events a conversation has told: the number of its last one.
ALTER TABLE conversations ADD COLUMN event_count INTEGER NOT NULL DEFAULT 0;

CREATE TABLE webhooks (
    id                         TEXT PRIMARY KEY,
    organization_id            TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    url                        TEXT NOT NULL,
    description                TEXT,
    events                     TEXT NOT NULL,    -- JSON array of event types
    include_sensitive          INTEGER NOT NULL,
    enabled                    INTEGER NOT NULL,
    secret                     BLOB NOT NULL,    -- sealed
    previous_secret            BLOB,             -- sealed; signs too until it expires
    previous_secret_expires_at INTEGER,
    consecutive_failures       INTEGER NOT NULL DEFAULT 0,
    paused_until               INTEGER,
    last_delivered_at          INTEGER,
    last_failed_at             INTEGER,
    last_error                 TEXT,
    dropped_events             INTEGER NOT NULL DEFAULT 0,
    created_at                 INTEGER NOT NULL UNIQUE,
    updated_at                 INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX webhooks_of_organisation ON webhooks (organization_id, created_at);

-- The outbox. Rows come in the transaction that makes durable what they tell of.
CREATE TABLE webhook_deliveries (
    id              TEXT PRIMARY KEY,
    webhook_id      TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id        TEXT NOT NULL,
    event_type      TEXT NOT NULL,
    subject         TEXT NOT NULL,    -- the call, within which the order of sequence is kept
    sequence        INTEGER NOT NULL,
    body            TEXT NOT NULL,    -- the event as it is posted
    state           TEXT NOT NULL,    -- pending, delivered or dead
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL, -- while an attempt is under way: when it counts as lost
    give_up_at      INTEGER NOT NULL,
    node            TEXT,             -- who makes an attempt, while one is under way
    status_code     INTEGER,
    error           TEXT,
    created_at      INTEGER NOT NULL UNIQUE,
    updated_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, next_attempt_at)
    WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (webhook_id, subject, sequence)
    WHERE state = 'pending';
CREATE INDEX webhook_deliveries_overdue ON webhook_deliveries (give_up_at)
    WHERE state = 'pending';
CREATE INDEX webhook_deliveries_of_webhook ON webhook_deliveries (webhook_id, created_at);
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (webhook_id, state, created_at);
