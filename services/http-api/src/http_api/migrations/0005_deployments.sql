-- Deployments of templates, and what became of each of their resources. They go on after a restart.
CREATE TABLE deployments (
    key text PRIMARY KEY,               -- the resource id in lower case
    id text NOT NULL,
    subscription text NOT NULL,         -- in lower case, like the group
    resource_group text NOT NULL,
    correlation uuid NOT NULL,          -- of this run: a deployment that is put again is another one
    sealed text NOT NULL,               -- template, parameters and surroundings, which may hold secrets
    shown json NOT NULL,                -- what GET shows of them
    principal json NOT NULL,            -- who deploys, and what they may do
    state text NOT NULL,                -- Accepted, Running, Succeeded, Failed, Canceled
    outputs json,
    error json,
    cancel_requested boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX deployments_group ON deployments (subscription, resource_group, key);
CREATE INDEX deployments_open ON deployments (started_at) WHERE ended_at IS NULL;

CREATE TABLE deployment_operations (
    deployment text NOT NULL REFERENCES deployments (key) ON DELETE CASCADE,
    id text NOT NULL,                   -- of the operation
    resource text NOT NULL,             -- the ARM id of what is written; empty: the outputs
    type text NOT NULL,
    name text NOT NULL,
    state text NOT NULL,                -- Running, Succeeded, Failed, Canceled
    status_code text,                   -- of the answer, in words, as Azure gives it
    error json,
    asks text,                          -- where to ask whether it is done: a path with its query
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (deployment, id)
);
