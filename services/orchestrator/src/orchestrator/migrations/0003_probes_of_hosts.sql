-- Whether a connection to an instance of the host says anything of its guest.
ALTER TABLE hosts ADD COLUMN tcp_probe_proves_guest boolean NOT NULL DEFAULT true;

-- Columns can only be added at the end of a view.
CREATE OR REPLACE VIEW host_view AS
SELECT host, driver, capacity, seen_at, tcp_probe_proves_guest FROM hosts;
