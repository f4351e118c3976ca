-- The newest conversation with a number is asked for while a person waits.

CREATE INDEX conversations_of_user ON conversations (organization_id, user_id, created_at);
