-- Tenancy: trees of organisations, users and what they are to organisations, tokens, the audit log.

ALTER TABLE organisations ADD COLUMN parent_id TEXT REFERENCES organisations (id);

CREATE INDEX organisations_of_parent ON organisations (parent_id, created_at);

CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    email      TEXT NOT NULL UNIQUE, -- in lower case
    created_at BIGINT NOT NULL UNIQUE
);

CREATE TABLE memberships (
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    user_id         TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name            TEXT NOT NULL, -- what the organisation calls the user
    role            TEXT NOT NULL,
    created_at      BIGINT NOT NULL UNIQUE,
    updated_at      BIGINT NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);

CREATE INDEX memberships_of_organisation ON memberships (organization_id, created_at);
CREATE INDEX memberships_of_user ON memberships (user_id);

CREATE TABLE personal_tokens (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         BYTEA NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the whole token
    expires_at   BIGINT,                                   -- milliseconds, as on the wire
    last_used_at BIGINT,
    created_at   BIGINT NOT NULL UNIQUE
);

CREATE INDEX personal_tokens_of_user ON personal_tokens (user_id, created_at);

-- The last entry of each chain: without it, nothing would tell that the newest entries are missing.
CREATE TABLE audit_chains (
    chain   TEXT PRIMARY KEY, -- an organisation's id, or 'node'
    entries BIGINT NOT NULL,
    head    BYTEA NOT NULL,   -- hash of the last entry, or zeros
    last_at BIGINT NOT NULL
);

-- No foreign keys: the log outlives what it speaks of.
CREATE TABLE audit_log (
    chain      TEXT NOT NULL,
    sequence   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    action     TEXT NOT NULL,
    object_id  TEXT,
    actor_id   TEXT,
    entry      TEXT NOT NULL,  -- the entry as JSON; the columns above repeat parts of it to find it by
    hash       BYTEA NOT NULL, -- SHA-256 of the hash before and of the entry
    PRIMARY KEY (chain, sequence),
    UNIQUE (chain, created_at)
);

CREATE INDEX audit_log_of_object ON audit_log (chain, object_id, created_at);
CREATE INDEX audit_log_of_actor ON audit_log (chain, actor_id, created_at);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;

CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
