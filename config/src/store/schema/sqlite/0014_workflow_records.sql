-- How much of the disk the records of an organisation's runs take, once these are over.

ALTER TABLE workflow_executions ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

UPDATE workflow_executions
    SET bytes = octet_length(input_data) + octet_length(trace) + coalesce(octet_length(output), 0)
        + coalesce(octet_length(error), 0)
    WHERE status IN ('success', 'failed');

CREATE TABLE workflow_records (
    organization_id TEXT PRIMARY KEY REFERENCES organisations (id) ON DELETE CASCADE,
    runs            INTEGER NOT NULL,
    bytes           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO workflow_records (organization_id, runs, bytes)
    SELECT organization_id, count(*), CAST(sum(bytes) AS INTEGER) FROM workflow_executions
    WHERE status IN ('success', 'failed') GROUP BY organization_id;

CREATE INDEX workflow_executions_over ON workflow_executions (organization_id, created_at, status, bytes)
    WHERE status IN ('success', 'failed');
