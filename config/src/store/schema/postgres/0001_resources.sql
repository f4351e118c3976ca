-- What customers configure and what calls leave behind.
--
-- Ids are hyphenated lower-case UUID text; times are microseconds since the Unix epoch; JSON is text.
-- created_at is unique in every table that is listed, because it is the cursor of the listing.
-- Every table is the one of the same name in SQLite, so that one query serves both.

-- The number of the last write that other nodes must see: one row.
CREATE TABLE store_changes (version BIGINT NOT NULL);
INSERT INTO store_changes VALUES (0);

-- SQLite has it built in.
CREATE FUNCTION instr(whole TEXT, part TEXT) RETURNS INTEGER
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT strpos(whole, part)';

CREATE TABLE organisations (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    max_phone_numbers BIGINT,
    created_at        BIGINT NOT NULL UNIQUE,
    updated_at        BIGINT NOT NULL
);

CREATE TABLE api_keys (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    hash            BYTEA NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the whole key
    grants          TEXT NOT NULL,                            -- JSON array of roles and scopes
    expires_at      BIGINT,                                   -- milliseconds, as on the wire
    last_used_at    BIGINT,
    created_at      BIGINT NOT NULL UNIQUE
);

CREATE INDEX api_keys_of_organisation ON api_keys (organization_id, created_at);

CREATE TABLE trunks (
    id                 TEXT PRIMARY KEY,
    organization_id    TEXT NOT NULL REFERENCES organisations (id),
    name               TEXT NOT NULL,
    name_folded        TEXT NOT NULL,        -- lower case, for substring search
    slug               TEXT NOT NULL UNIQUE, -- names the trunk in its inbound URI
    managed_account_id TEXT,
    inbound_config     TEXT,                 -- JSON without the password
    inbound_username   TEXT UNIQUE,          -- from inbound_config: credentials name one trunk
    inbound_password   BYTEA,                -- sealed
    outbound_config    TEXT,                 -- JSON without the password
    outbound_password  BYTEA,                -- sealed
    created_at         BIGINT NOT NULL UNIQUE,
    updated_at         BIGINT NOT NULL
);

CREATE INDEX trunks_of_organisation ON trunks (organization_id, created_at);

CREATE TABLE agents (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organisations (id),
    name            TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    description     TEXT,
    active          BOOLEAN NOT NULL,
    is_demo         BOOLEAN NOT NULL,
    metadata        TEXT,
    deployed_as_sip BOOLEAN NOT NULL DEFAULT FALSE,
    next_version    BIGINT NOT NULL DEFAULT 1, -- version numbers are never reused
    created_at      BIGINT NOT NULL UNIQUE,
    updated_at      BIGINT NOT NULL
);

CREATE INDEX agents_of_organisation ON agents (organization_id, created_at);

CREATE TABLE agent_versions (
    id                           TEXT PRIMARY KEY,
    agent_id                     TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version                      BIGINT NOT NULL,
    published                    BOOLEAN NOT NULL DEFAULT FALSE,
    config                       TEXT NOT NULL, -- JSON, verbatim but for secrets
    runtime_token                BYTEA,         -- sealed config.runtime.auth_token
    instruction_builder_inputs   TEXT,
    instructions_status          TEXT NOT NULL DEFAULT 'idle',
    instructions_dirty           BOOLEAN NOT NULL DEFAULT FALSE,
    instructions_manually_edited BOOLEAN NOT NULL DEFAULT FALSE,
    created_at                   BIGINT NOT NULL UNIQUE,
    updated_at                   BIGINT NOT NULL,
    UNIQUE (agent_id, version)
);

CREATE INDEX agent_versions_published ON agent_versions (published, agent_id, version);

CREATE TABLE phone_numbers (
    phone_number              TEXT PRIMARY KEY,
    organization_id           TEXT NOT NULL REFERENCES organisations (id),
    trunk_id                  TEXT NOT NULL REFERENCES trunks (id) ON DELETE RESTRICT,
    inbound_agent_version_id  TEXT REFERENCES agent_versions (id) ON DELETE SET NULL,
    outbound_agent_version_id TEXT REFERENCES agent_versions (id) ON DELETE SET NULL,
    outbound_shareable        BOOLEAN NOT NULL DEFAULT FALSE,
    created_at                BIGINT NOT NULL UNIQUE,
    updated_at                BIGINT NOT NULL
);

CREATE INDEX phone_numbers_of_organisation ON phone_numbers (organization_id, created_at);
CREATE INDEX phone_numbers_of_trunk ON phone_numbers (trunk_id);
CREATE INDEX phone_numbers_inbound ON phone_numbers (inbound_agent_version_id)
    WHERE inbound_agent_version_id IS NOT NULL;
CREATE INDEX phone_numbers_outbound ON phone_numbers (outbound_agent_version_id)
    WHERE outbound_agent_version_id IS NOT NULL;

-- Records outlive what they speak of: no foreign keys to trunks, agents or versions.
CREATE TABLE conversations (
    id                TEXT PRIMARY KEY,
    organization_id   TEXT NOT NULL REFERENCES organisations (id),
    node              TEXT NOT NULL, -- whose call it is, while it is up
    direction         TEXT NOT NULL,
    channel           TEXT NOT NULL,
    status            TEXT NOT NULL,
    user_id           TEXT NOT NULL,
    agent_id          TEXT,
    agent_version_id  TEXT,
    agent_number      TEXT,
    web_widget_id     TEXT,
    trunk_id          TEXT,
    trunk_call_id     TEXT,
    duration          BIGINT,
    user_turn_count   BIGINT,
    end_reason        TEXT,
    quality           TEXT,
    summary           TEXT,
    initial_context   TEXT,
    custom_metadata   TEXT,
    conversation      TEXT,
    recording_details TEXT,
    answered_at       BIGINT,
    ended_at          BIGINT,
    created_at        BIGINT NOT NULL UNIQUE,
    updated_at        BIGINT NOT NULL
);

CREATE INDEX conversations_of_organisation ON conversations (organization_id, created_at);
CREATE INDEX conversations_of_agent ON conversations (agent_id, created_at);
CREATE INDEX conversations_open ON conversations (node)
    WHERE status IN ('token_created', 'triggered', 'ringing', 'in_progress');

CREATE TABLE decisions (
    id              TEXT PRIMARY KEY,
    organization_id TEXT REFERENCES organisations (id) ON DELETE CASCADE,
    source_ip       TEXT NOT NULL,
    called_number   TEXT,
    rule            TEXT NOT NULL,
    record          TEXT NOT NULL, -- the whole decision as JSON
    created_at      BIGINT NOT NULL UNIQUE
);

CREATE INDEX decisions_of_organisation ON decisions (organization_id, created_at);
