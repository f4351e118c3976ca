-- What customers configure and what calls leave behind.
--
-- Ids are hyphenated lower-case UUID text; times are microseconds since the Unix epoch; JSON is text.
-- created_at is unique in every table that is listed, because it is the cursor of the listing.

CREATE TABLE organisations (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    max_phone_numbers INTEGER,
    created_at        INTEGER NOT NULL UNIQUE,
    updated_at        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    hash            BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the whole key
    grants          TEXT NOT NULL,                           -- JSON array of roles and scopes
    expires_at      INTEGER,                                 -- milliseconds, as on the wire
    last_used_at    INTEGER,
    created_at      INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

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
    inbound_password   BLOB,                 -- sealed
    outbound_config    TEXT,                 -- JSON without the password
    outbound_password  BLOB,                 -- sealed
    created_at         INTEGER NOT NULL UNIQUE,
    updated_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX trunks_of_organisation ON trunks (organization_id, created_at);

CREATE TABLE agents (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organisations (id),
    name            TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    description     TEXT,
    active          INTEGER NOT NULL,
    is_demo         INTEGER NOT NULL,
    metadata        TEXT,
    deployed_as_sip INTEGER NOT NULL DEFAULT 0,
    next_version    INTEGER NOT NULL DEFAULT 1, -- version numbers are never reused
    created_at      INTEGER NOT NULL UNIQUE,
    updated_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX agents_of_organisation ON agents (organization_id, created_at);

CREATE TABLE agent_versions (
    id                           TEXT PRIMARY KEY,
    agent_id                     TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version                      INTEGER NOT NULL,
    published                    INTEGER NOT NULL DEFAULT 0,
    config                       TEXT NOT NULL, -- JSON, verbatim but for secrets
    runtime_token                BLOB,          -- sealed config.runtime.auth_token
    instruction_builder_inputs   TEXT,
    instructions_status          TEXT NOT NULL DEFAULT 'idle',
    instructions_dirty           INTEGER NOT NULL DEFAULT 0,
    instructions_manually_edited INTEGER NOT NULL DEFAULT 0,
    created_at                   INTEGER NOT NULL UNIQUE,
    updated_at                   INTEGER NOT NULL,
    UNIQUE (agent_id, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_versions_published ON agent_versions (published, agent_id, version);

CREATE TABLE phone_numbers (
    phone_number              TEXT PRIMARY KEY,
    organization_id           TEXT NOT NULL REFERENCES organisations (id),
    trunk_id                  TEXT NOT NULL REFERENCES trunks (id) ON DELETE RESTRICT,
    inbound_agent_version_id  TEXT REFERENCES agent_versions (id) ON DELETE SET NULL,
    outbound_agent_version_id TEXT REFERENCES agent_versions (id) ON DELETE SET NULL,
    outbound_shareable        INTEGER NOT NULL DEFAULT 0,
    created_at                INTEGER NOT NULL UNIQUE,
    updated_at                INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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
    duration          INTEGER,
    user_turn_count   INTEGER,
    end_reason        TEXT,
    quality           TEXT,
    summary           TEXT,
    initial_context   TEXT,
    custom_metadata   TEXT,
    conversation      TEXT,
    recording_details TEXT,
    answered_at       INTEGER,
    ended_at          INTEGER,
    created_at        INTEGER NOT NULL UNIQUE,
    updated_at        INTEGER NOT NULL
) STRICT;

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
    created_at      INTEGER NOT NULL UNIQUE
) STRICT;

CREATE INDEX decisions_of_organisation ON decisions (organization_id, created_at);
