-- What is kept and given back: resource groups that somebody made, and resources that nothing here acts on.
CREATE TABLE resource_groups (
    key text PRIMARY KEY,               -- the resource id in lower case
    id text NOT NULL,
    subscription text NOT NULL,         -- in lower case
    model json NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX resource_groups_subscription ON resource_groups (subscription, key);

CREATE TABLE resources (
    key text PRIMARY KEY,
    id text NOT NULL,
    type text NOT NULL,                 -- in lower case, such as microsoft.network/virtualnetworks
    subscription text NOT NULL,
    resource_group text NOT NULL,
    model json NOT NULL,                -- without secrets
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX resources_group ON resources (type, subscription, resource_group, key);

-- Who this installation is, to clients that ask for a tenant and a subscription. One row.
CREATE TABLE directory (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    tenant uuid NOT NULL DEFAULT gen_random_uuid(),
    subscription uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO directory DEFAULT VALUES;

-- Every resource, wherever it is kept.
CREATE VIEW resource_view AS
SELECT key, id, 'Microsoft.Compute/virtualMachineScaleSets' AS type, subscription, resource_group, model ->> 'location' AS location, model -> 'tags' AS tags FROM scale_sets
UNION ALL
SELECT key, id, 'Microsoft.Network/loadBalancers', subscription, resource_group, model ->> 'location', model -> 'tags' FROM load_balancers
UNION ALL
SELECT key, id, split_part(split_part(id, '/providers/', 2), '/', 1) || '/' || split_part(split_part(id, '/providers/', 2), '/', 2), subscription, resource_group, model ->> 'location', model -> 'tags' FROM resources;
