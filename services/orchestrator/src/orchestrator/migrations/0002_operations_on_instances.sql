-- What people ask of single instances: new OS disks, and power.
ALTER TABLE instances
    DROP CONSTRAINT instances_phase_check,
    ADD CONSTRAINT instances_phase_check CHECK (phase IN ('creating', 'ready', 'upgrading', 'restoring', 'powering', 'deleting', 'failed')),
    ADD COLUMN reimage boolean NOT NULL DEFAULT false,      -- to get a new OS disk when its turn comes
    ADD COLUMN reimage_number int NOT NULL DEFAULT 0,       -- of the newest reimage that was asked for
    ADD COLUMN wish text NOT NULL DEFAULT 'running' CHECK (wish IN ('running', 'stopped', 'deallocated')),
    ADD COLUMN power_due text CHECK (power_due IN ('start', 'restart', 'powerOff')),  -- to be asked of its agent
    ADD COLUMN power_number int NOT NULL DEFAULT 0,         -- of the newest change of power that was asked for
    ADD COLUMN booting boolean NOT NULL DEFAULT false;      -- taken down for a person, and not healthy since

ALTER TABLE fleets ADD COLUMN start_reimage boolean NOT NULL DEFAULT false;
ALTER TABLE upgrades ADD COLUMN reimage boolean NOT NULL DEFAULT false;  -- also of instances that run the target already

-- Columns can only be added at the end of a view.
CREATE OR REPLACE VIEW instance_view AS
SELECT scale_set, id, host, zone, attempt, phase, version, generation, address, port, power, health,
       since, error, created_at, previous_version, replaces, protect_from_scale_in,
       protect_from_scale_set_actions, phase_order, skip_upgrade, uncommitted, deploy, reimage, reimage_number,
       wish, power_due, power_number, booting
FROM instances;

CREATE OR REPLACE VIEW upgrade_view AS
SELECT u.id, u.scale_set, u.status, u.started_by, u.image, u.policy, u.cancel_requested,
       u.pause_requested, u.deferred, u.override, u.rollback_of, u.held, u.metric_check,
       u.restore_failed AS puts_back, u.open_batches, u.paused_since, u.fetches, u.batch, u.started_at, u.ended_at, u.error, u.reason, r.*,
       u.reimage
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
