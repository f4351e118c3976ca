-- Work that goes on after its request was answered.
--
-- run_at is when a job may be taken: a waiting one's time, a running one's end of lease.

CREATE TABLE jobs (
    id              TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    kind            TEXT NOT NULL,
    subject         TEXT,          -- what it is about
    payload         TEXT NOT NULL, -- JSON
    progress        TEXT NOT NULL, -- JSON
    status          TEXT NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    run_at          INTEGER NOT NULL,
    lease           TEXT,          -- whoever can name it works on the job
    node            TEXT,          -- where that is
    result          TEXT,          -- JSON
    error           TEXT,
    created_at      INTEGER NOT NULL UNIQUE,
    updated_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX jobs_of_organisation ON jobs (organization_id, created_at);
CREATE INDEX jobs_due ON jobs (run_at) WHERE status IN ('waiting', 'running');
CREATE UNIQUE INDEX jobs_subject ON jobs (kind, subject) WHERE status IN ('waiting', 'running');

-- Who wrote a version's instructions: 'model', 'assembled', or nobody but its owner.
ALTER TABLE agent_versions ADD COLUMN instructions_source TEXT;
