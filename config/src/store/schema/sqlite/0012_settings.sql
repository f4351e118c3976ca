-- What an organisation says of its calls once for all of them: null is what the node's settings say.

ALTER TABLE organisations ADD COLUMN concurrency_limit INTEGER;
ALTER TABLE organisations ADD COLUMN default_runtime TEXT; -- a runtime block, without its secret
ALTER TABLE organisations ADD COLUMN runtime_token BLOB;   -- sealed default_runtime.auth_token
