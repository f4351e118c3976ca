-- Runs after conversations: of which conversation, and of workflows that stand in an agent's config and
-- so have neither an id nor a version.

ALTER TABLE workflow_executions ADD COLUMN conversation_id TEXT;
ALTER TABLE workflow_executions ALTER COLUMN workflow_id DROP NOT NULL;
ALTER TABLE workflow_executions ALTER COLUMN workflow_version DROP NOT NULL;

CREATE INDEX workflow_executions_of_conversation ON workflow_executions (conversation_id)
    WHERE conversation_id IS NOT NULL;
