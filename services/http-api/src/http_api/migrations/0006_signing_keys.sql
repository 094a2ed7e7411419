-- Keys are retired, by age or by command, and count until the last token that they signed has ended.
ALTER TABLE signing_keys ADD COLUMN retired_at timestamptz;
UPDATE signing_keys SET retired_at = now()
WHERE created_at < (SELECT max(created_at) FROM signing_keys);
