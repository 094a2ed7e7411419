-- The event log is the outbox: rows stay, numbered without gaps and chained per stream.
CREATE TABLE event_streams (
    stream text PRIMARY KEY,
    last_sequence bigint NOT NULL,
    last_hash text NOT NULL
);

CREATE TABLE event_log (
    stream text NOT NULL,
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    subject text NOT NULL,
    correlation_id text,
    routing_key text NOT NULL,
    time timestamptz NOT NULL,
    body text NOT NULL,
    previous_hash text NOT NULL,
    hash text NOT NULL,
    PRIMARY KEY (stream, sequence)
);
CREATE INDEX event_log_time ON event_log (time);

-- How far each stream is published. A table of its own, so that a relay at work never holds up a writer.
CREATE TABLE event_relay (
    stream text PRIMARY KEY,
    published bigint NOT NULL
);

CREATE VIEW event_view AS
SELECT stream, sequence, id, type, source, subject, correlation_id, time, body, previous_hash, hash
FROM event_log;
