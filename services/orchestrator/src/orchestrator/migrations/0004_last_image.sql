-- What the last upgrade brought, as it was published: a rollback keeps off it also when it was withdrawn since.
ALTER TABLE fleets ADD COLUMN last_image jsonb;

UPDATE fleets f SET last_image = (
    SELECT u.image FROM upgrades u
    WHERE u.scale_set = f.scale_set AND u.image ->> 'version' = f.last_version
    ORDER BY u.started_at DESC LIMIT 1
);
