-- Long-running operations: what a client was told to poll. They survive a restart, and any copy of the service answers.
CREATE TABLE operations (
    id uuid PRIMARY KEY,
    kind text NOT NULL,                 -- what it waits for
    action text NOT NULL,               -- what was asked: 'PUT', 'osRollingUpgrade' …
    resource text NOT NULL,             -- the ARM id that it is about
    resource_key text NOT NULL,         -- the same in lower case
    client_request text,                -- x-ms-client-request-id and a digest of the body: a repeated POST has the same
    goal json NOT NULL,
    status text NOT NULL,
    error json,
    started_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX operations_resource ON operations (resource_key, action, started_at);
CREATE INDEX operations_started ON operations (started_at);
