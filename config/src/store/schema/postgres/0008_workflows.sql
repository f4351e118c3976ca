-- Workflows, their versions, and their runs. Definitions are JSON, as they were written.

CREATE TABLE workflows (
    id              TEXT PRIMARY KEY, -- wf_ and 32 digits
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    description     TEXT,
    next_version    BIGINT NOT NULL DEFAULT 1,
    created_at      BIGINT NOT NULL UNIQUE,
    updated_at      BIGINT NOT NULL
);

CREATE INDEX workflows_of_organisation ON workflows (organization_id, created_at);

CREATE TABLE workflow_versions (
    workflow_id TEXT NOT NULL REFERENCES workflows (id) ON DELETE CASCADE,
    version     BIGINT NOT NULL,
    published   BOOLEAN NOT NULL DEFAULT FALSE,
    definition  TEXT NOT NULL,
    created_at  BIGINT NOT NULL UNIQUE,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (workflow_id, version)
);

-- A run outlives its workflow, as a record.
CREATE TABLE workflow_executions (
    id               TEXT PRIMARY KEY,
    organization_id  TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    workflow_id      TEXT NOT NULL,
    workflow_version BIGINT NOT NULL,
    status           TEXT NOT NULL,
    input_data       TEXT NOT NULL,
    output           TEXT,
    error            TEXT,
    trace            TEXT NOT NULL,
    resume_at        BIGINT,
    created_at       BIGINT NOT NULL UNIQUE,
    updated_at       BIGINT NOT NULL
);

CREATE INDEX workflow_executions_of_organisation
    ON workflow_executions (organization_id, created_at);
