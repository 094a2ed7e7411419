CREATE TABLE hosts (
    host text PRIMARY KEY,
    driver text NOT NULL,
    capacity int,                       -- instances that it has room for; NULL: not known
    seen_at timestamptz NOT NULL
);

-- One row per scale set: its lock, and what belongs to the set as a whole.
CREATE TABLE fleets (
    scale_set text PRIMARY KEY,
    token uuid NOT NULL,                -- changes with each save: tells a cached copy from a stale one
    spec jsonb NOT NULL,
    image_stream text NOT NULL,         -- publisher/offer/sku in lower case
    deleted boolean NOT NULL DEFAULT false,
    next_id bigint NOT NULL DEFAULT 0,  -- instance ids are never used twice
    barred_version text,                -- ended Faulted or Cancelled: not tried again by itself
    held jsonb,                         -- why an upgrade does not start: {code, message, target, version}
    start_requested boolean NOT NULL DEFAULT false,
    start_override boolean NOT NULL DEFAULT false,
    start_reason text NOT NULL DEFAULT '',
    rollback_requested boolean NOT NULL DEFAULT false,
    hook jsonb,                         -- a lifecycle hook that asks, or was answered and not acted on yet
    last_version text,                  -- what the last upgrade brought
    batch_seconds jsonb NOT NULL DEFAULT '[]',  -- how long the last batches took
    waiting jsonb,                      -- what the set waits for, in a sentence: {code, message, until}
    wake_at timestamptz NOT NULL
);
CREATE INDEX fleets_wake ON fleets (wake_at);
CREATE INDEX fleets_stream ON fleets (image_stream);

-- Versions that sets keep off until a person clears them.
CREATE TABLE image_holds (
    stream text NOT NULL,
    version text NOT NULL,
    image jsonb NOT NULL,
    by_set text NOT NULL,               -- where it faulted, or was rolled back
    upgrade_id text NOT NULL,
    quarantine boolean NOT NULL,        -- that set, too, keeps off it
    error jsonb NOT NULL,
    held_at timestamptz NOT NULL,
    PRIMARY KEY (stream, version)
);

CREATE TABLE instances (
    scale_set text NOT NULL REFERENCES fleets ON DELETE CASCADE,
    id text NOT NULL,
    host text NOT NULL,
    zone text,
    attempt int NOT NULL,
    phase text NOT NULL CHECK (phase IN ('creating', 'ready', 'upgrading', 'restoring', 'deleting', 'failed')),
    version text,                       -- of the OS disk in place
    generation int NOT NULL,            -- of the model that was applied last
    address text,
    port int,
    power text NOT NULL CHECK (power IN ('running', 'stopped')),
    health text NOT NULL,
    since timestamptz NOT NULL,         -- when the phase began
    lease bigint NOT NULL,               -- of probing; never goes down
    probed_until timestamptz,
    uncommitted boolean NOT NULL,       -- the previous OS disk is still kept
    deploy boolean NOT NULL,            -- to be brought to the model now
    error jsonb,
    created_at timestamptz NOT NULL,
    previous_version text,              -- what its last upgrade found, until it is rolled back
    replaces text,                      -- the instance whose place it takes, while that one is there
    protect_from_scale_in boolean NOT NULL DEFAULT false,
    protect_from_scale_set_actions boolean NOT NULL DEFAULT false,
    phase_order int,                    -- its application's wish: PhaseOrderingNumber
    skip_upgrade boolean NOT NULL DEFAULT false,
    PRIMARY KEY (scale_set, id)
);
CREATE INDEX instances_of_host ON instances (host);

CREATE TABLE upgrades (
    id uuid PRIMARY KEY,
    scale_set text NOT NULL REFERENCES fleets ON DELETE CASCADE,
    status text NOT NULL CHECK (status IN ('RollingForward', 'Cancelled', 'Completed', 'Faulted')),
    started_by text NOT NULL,
    image jsonb NOT NULL,
    policy jsonb NOT NULL,
    restore_failed boolean NOT NULL,
    batch int NOT NULL,                 -- number of the last batch started
    open_batches jsonb NOT NULL,        -- {number: {started_at, instance_ids}}; several only when sliding
    paused_since timestamptz,           -- when the last batch ended
    fetches jsonb NOT NULL,             -- {host: fetched}
    cancel_requested boolean NOT NULL,
    pause_requested boolean NOT NULL,
    deferred boolean NOT NULL,          -- each instance waits for its approval
    override boolean NOT NULL,          -- brought to a sick set on purpose
    rollback_of text,                   -- the version that the set is brought back from
    breach jsonb,                       -- what it will fault for, once failed instances are put back
    held text,                          -- the code for which the next batch was last said to wait
    metric_check jsonb,                 -- the last question to the metric gate
    fetch_error jsonb,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    error jsonb,
    reason text NOT NULL
);
CREATE INDEX upgrades_of_set ON upgrades (scale_set, started_at DESC);
CREATE UNIQUE INDEX one_running_upgrade ON upgrades (scale_set) WHERE status = 'RollingForward';

CREATE TABLE batches (
    upgrade_id uuid NOT NULL REFERENCES upgrades ON DELETE CASCADE,
    number int NOT NULL,
    size int NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    succeeded int,
    failed int,
    reason text NOT NULL,
    PRIMARY KEY (upgrade_id, number)
);

CREATE TABLE upgrade_results (
    upgrade_id uuid NOT NULL REFERENCES upgrades ON DELETE CASCADE,
    id text NOT NULL,                   -- of the instance
    state text NOT NULL CHECK (state IN ('pending', 'skipped', 'upgrading', 'surging', 'provisioned',
        'succeeded', 'failed', 'restoring', 'restored', 'restore_failed')),
    batch int,
    from_version text,
    since timestamptz NOT NULL,
    error jsonb,
    reason text NOT NULL,
    approved boolean NOT NULL,          -- of a deferred upgrade
    phase int,                          -- PhaseOrderingNumber at the start
    replacement text,                   -- the instance that a surge puts in its place
    PRIMARY KEY (upgrade_id, id)
);

-- What other services may read.
CREATE VIEW fleet_view AS
SELECT scale_set, spec, deleted, held, barred_version, start_requested, rollback_requested, hook,
       last_version, batch_seconds, waiting
FROM fleets;

CREATE VIEW instance_view AS
SELECT scale_set, id, host, zone, attempt, phase, version, generation, address, port, power, health,
       since, error, created_at, previous_version, replaces, protect_from_scale_in,
       protect_from_scale_set_actions, phase_order, skip_upgrade, uncommitted, deploy
FROM instances;

CREATE VIEW upgrade_view AS
SELECT u.id, u.scale_set, u.status, u.started_by, u.image, u.policy, u.cancel_requested,
       u.pause_requested, u.deferred, u.override, u.rollback_of, u.held, u.metric_check,
       u.restore_failed AS puts_back, u.open_batches, u.paused_since, u.fetches, u.batch, u.started_at, u.ended_at, u.error, u.reason, r.*
FROM upgrades u
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE state = 'succeeded') AS successful,
        count(*) FILTER (WHERE state IN ('failed', 'restored', 'restore_failed')) AS failed,
        count(*) FILTER (WHERE state IN ('upgrading', 'surging', 'provisioned', 'restoring')) AS in_progress,
        count(*) FILTER (WHERE state IN ('pending', 'skipped')) AS pending,
        count(*) FILTER (WHERE state = 'skipped') AS skipped,
        count(*) FILTER (WHERE state = 'restored') AS restored,
        count(*) FILTER (WHERE state = 'restore_failed') AS restore_failed
    FROM upgrade_results WHERE upgrade_id = u.id
) r;

-- Without the instances' results, which would have to be counted.
CREATE VIEW upgrade_status_view AS
SELECT id, scale_set, status, error ->> 'code' AS error_code, started_at, ended_at FROM upgrades;

CREATE VIEW batch_view AS SELECT * FROM batches;
CREATE VIEW upgrade_result_view AS SELECT * FROM upgrade_results;
CREATE VIEW host_view AS SELECT host, driver, capacity, seen_at FROM hosts;
CREATE VIEW image_hold_view AS SELECT * FROM image_holds;
