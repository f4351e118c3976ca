-- Calls out: how the last transfer of a conversation came out (JSON).

ALTER TABLE conversations ADD COLUMN transfer TEXT;
