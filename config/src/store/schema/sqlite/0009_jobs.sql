-- Jobs that are over, and there may be many, are no longer passed on the way to those that are not.

DROP INDEX jobs_due;

-- All that finding the next job asks about: rows are large, and only the one that is found is read.
-- SQLite looks for the status in a row, though the index has no other, unless the index has it too.
CREATE INDEX jobs_due ON jobs (run_at, created_at, organization_id, kind, status)
    WHERE status IN ('waiting', 'running');
CREATE INDEX jobs_running ON jobs (organization_id, run_at, kind, status) WHERE status = 'running';
CREATE INDEX jobs_unfinished ON jobs (organization_id, status) WHERE status IN ('waiting', 'running');
CREATE INDEX jobs_over ON jobs (updated_at) WHERE status IN ('done', 'failed');
