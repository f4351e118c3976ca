-- Organisations take turns at having a job done: in each kind, whose last turn is longest ago is next.

CREATE TABLE job_turns (
    organization_id TEXT NOT NULL REFERENCES organisations (id) ON DELETE CASCADE,
    kind            TEXT NOT NULL,
    last_at         INTEGER NOT NULL, -- when a job was last begun; before the first, when it was made
    PRIMARY KEY (organization_id, kind)
) STRICT, WITHOUT ROWID;

INSERT INTO job_turns (organization_id, kind, last_at)
    SELECT organization_id, kind, min(created_at) FROM jobs
    WHERE status IN ('waiting', 'running') GROUP BY organization_id, kind;

CREATE INDEX job_turns_in_order ON job_turns (last_at, organization_id, kind);

-- All that is asked about an organisation's jobs of one kind: how many are unfinished, and which is due.
-- Rows are large, and only the one that is found is read; the status is there for SQLite, as before.
DROP INDEX jobs_due;
DROP INDEX jobs_unfinished;
CREATE INDEX jobs_due ON jobs (organization_id, kind, run_at, created_at, status)
    WHERE status IN ('waiting', 'running');

-- Runs that seem to go on are looked at every minute.
CREATE INDEX workflow_executions_running ON workflow_executions (created_at) WHERE status = 'running';
