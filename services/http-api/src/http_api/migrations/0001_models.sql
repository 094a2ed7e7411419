-- The desired models, as people wrote them. `json`, not `jsonb`: what Rollcall does not act on is given
-- back as it came, with its order of keys and its numbers.

-- One sequence for all sets: a set that is deleted and made again goes on counting up.
CREATE SEQUENCE model_revisions AS int;

CREATE TABLE scale_sets (
    key text PRIMARY KEY,               -- the resource id in lower case: ARM ids have no case
    id text NOT NULL,                   -- as it was first written
    subscription text NOT NULL,         -- in lower case, like the group
    resource_group text NOT NULL,
    model json NOT NULL,                -- without secrets
    secrets json NOT NULL,              -- {"customData": sealed, "extensions": {name: sealed}}
    generation int NOT NULL,            -- revision that last changed the virtualMachineProfile
    load_balancer text,                 -- key of the load balancer whose probe the model names
    warnings json NOT NULL,             -- [{code, message, target}]
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX scale_sets_group ON scale_sets (subscription, resource_group, key);
CREATE INDEX scale_sets_balancer ON scale_sets (load_balancer) WHERE load_balancer IS NOT NULL;

CREATE TABLE load_balancers (
    key text PRIMARY KEY,
    id text NOT NULL,
    subscription text NOT NULL,
    resource_group text NOT NULL,
    model json NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX load_balancers_group ON load_balancers (subscription, resource_group, key);
