CREATE TABLE images (
    stream text NOT NULL,               -- publisher/offer/sku in lower case
    version text NOT NULL,
    image jsonb NOT NULL,               -- rollcall_contracts.model.Image
    feed text NOT NULL,
    product text NOT NULL,              -- in the feed's own words, as are the next two
    document text NOT NULL,
    location text NOT NULL,
    published_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    withdrawn_reason text,
    PRIMARY KEY (stream, version)
);
CREATE INDEX images_feed ON images (feed);

CREATE TABLE feeds (
    feed text PRIMARY KEY,
    url text NOT NULL,
    polls bigint NOT NULL DEFAULT 0,    -- recorded polls: tells whether another publisher was faster
    checked_at timestamptz,             -- last poll
    updated_at timestamptz,             -- last poll that was accepted
    feed_updated text,                  -- the feed's own `updated`, which must not go back
    error jsonb,                        -- {code, message, target}; null while all is well
    problems jsonb NOT NULL DEFAULT '[]',   -- all that is wrong, the same shape; `error` is the first
    documents jsonb NOT NULL DEFAULT '{}',  -- newest `updated` accepted, by document
    validators jsonb NOT NULL DEFAULT '{}'  -- of conditional requests: {fingerprint, documents, problems}
);

CREATE TABLE feed_errors (
    feed text NOT NULL,
    code text NOT NULL,
    count bigint NOT NULL,
    last_at timestamptz NOT NULL,
    last_message text NOT NULL,
    PRIMARY KEY (feed, code)
);

-- What other services may read.
CREATE VIEW image_view AS
SELECT stream, version, image, feed, published_at, withdrawn_at, withdrawn_reason FROM images;
CREATE VIEW feed_view AS
SELECT feed, url, checked_at, updated_at, feed_updated, error FROM feeds;
CREATE VIEW feed_error_view AS SELECT * FROM feed_errors;
