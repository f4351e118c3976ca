-- Runs after conversations: of which conversation, and of workflows that stand in an agent's config and
-- so have neither an id nor a version.

ALTER TABLE workflow_executions ADD COLUMN conversation_id TEXT;

-- SQLite takes a column's NOT NULL away only with the column.
ALTER TABLE workflow_executions RENAME COLUMN workflow_id TO past_id;
ALTER TABLE workflow_executions RENAME COLUMN workflow_version TO past_version;
ALTER TABLE workflow_executions ADD COLUMN workflow_id TEXT;
ALTER TABLE workflow_executions ADD COLUMN workflow_version INTEGER;
UPDATE workflow_executions SET workflow_id = past_id, workflow_version = past_version;
ALTER TABLE workflow_executions DROP COLUMN past_id;
ALTER TABLE workflow_executions DROP COLUMN past_version;

CREATE INDEX workflow_executions_of_conversation ON workflow_executions (conversation_id)
    WHERE conversation_id IS NOT NULL;
