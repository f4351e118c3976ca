-- Inbound routing: the one workflow of an organisation that chooses the agent of its calls.

CREATE TABLE inbound_routing_configs (
    id                     TEXT PRIMARY KEY,
    organization_id        TEXT NOT NULL UNIQUE REFERENCES organisations (id) ON DELETE CASCADE,
    workflow_definition    TEXT NOT NULL, -- JSON, verbatim
    fallback_agent_id      TEXT REFERENCES agents (id) ON DELETE SET NULL,
    fallback_agent_version INTEGER,       -- means nothing without the agent
    enabled                INTEGER NOT NULL,
    created_at             INTEGER NOT NULL UNIQUE,
    updated_at             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX inbound_routing_configs_of_agent ON inbound_routing_configs (fallback_agent_id)
    WHERE fallback_agent_id IS NOT NULL;
