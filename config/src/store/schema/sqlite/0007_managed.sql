-- Numbers that are being bought, are held, or are being given back through a managed account. A row is
-- written before the provider is asked and goes when nothing of it is left there.

CREATE TABLE number_orders (
    id                 TEXT PRIMARY KEY,
    organization_id    TEXT NOT NULL REFERENCES organisations (id),
    managed_account_id TEXT NOT NULL,
    phone_number       TEXT NOT NULL UNIQUE, -- one order for a number at a time
    trunk_id           TEXT NOT NULL,        -- of the trunk that will carry it
    slug               TEXT NOT NULL UNIQUE, -- of that trunk
    password           BLOB,                 -- sealed; goes to the trunk when the number is held
    state              TEXT NOT NULL,        -- buying, held, releasing
    attempts           INTEGER NOT NULL,
    due_at             INTEGER NOT NULL,     -- when somebody may work on it (again)
    created_at         INTEGER NOT NULL UNIQUE,
    updated_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX number_orders_due ON number_orders (due_at) WHERE state <> 'held';
CREATE INDEX number_orders_of_organisation ON number_orders (organization_id);
