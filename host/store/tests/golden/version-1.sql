-- A database of schema version 1. Never changed: it stands for those that people have.
PRAGMA application_id = 1097690724;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE blobs (
        kind   TEXT NOT NULL,
        digest BLOB NOT NULL,
        name   TEXT NOT NULL,
        at     INTEGER NOT NULL,
        bytes  BLOB NOT NULL,
        PRIMARY KEY (kind, digest)
    );
INSERT INTO "blobs" VALUES('component',X'CD5D4935A48C0672CB06407BB443BC0087AFF947C6B864BAC886982C73B3027F','inventory',1767225603000,X'0061736D');
CREATE TABLE events (
        position INTEGER PRIMARY KEY,
        stream   NOT NULL,
        version  INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        type     TEXT NOT NULL,
        data     TEXT NOT NULL
    );
INSERT INTO "events" VALUES(1,X'019B76DAABE87E37B9B1000000000001',1,1767225601000,'saga.started','{"number":1,"text":"naïve 💊 \u0000 \" end"}');
INSERT INTO "events" VALUES(2,X'019B76DAAFD07C6EB362000000000002',1,1767225602000,'saga.started','{"number":2,"text":"naïve 💊 \u0000 \" end"}');
INSERT INTO "events" VALUES(3,X'019B76DAABE87E37B9B1000000000001',2,1767225601000,'saga.started','{"number":1,"text":"naïve 💊 \u0000 \" end"}');
INSERT INTO "events" VALUES(4,X'019B76DAAFD07C6EB362000000000002',2,1767225602000,'saga.started','{"number":2,"text":"naïve 💊 \u0000 \" end"}');
INSERT INTO "events" VALUES(5,'inventory',1,1767225604000,'plugin.activated','{"number":4,"text":"naïve 💊 \u0000 \" end"}');
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('fence',1);
CREATE TABLE saga_tags (
        name  TEXT NOT NULL,
        value TEXT NOT NULL,
        saga  BLOB NOT NULL,
        PRIMARY KEY (name, value, saga)
    ) WITHOUT ROWID;
INSERT INTO "saga_tags" VALUES('customer','Zoë',X'019B76DAABE87E37B9B1000000000001');
CREATE TABLE sagas (
        id                BLOB PRIMARY KEY,
        definition        TEXT NOT NULL,
        definition_digest BLOB NOT NULL,
        status            TEXT NOT NULL,
        reason            TEXT,
        started_at        INTEGER NOT NULL,
        ended_at          INTEGER,
        deadline_at       INTEGER,
        wake_at           INTEGER,
        tags              TEXT,
        key               TEXT
    ) WITHOUT ROWID;
INSERT INTO "sagas" VALUES(X'019B76DAABE87E37B9B1000000000001','order-fulfillment',X'FCCF246B8117ACD4D09DB7276414AEFCCBAEB6A9709C2920328D9E4BA6D01901','running',NULL,1767225601000,NULL,1767226601000,NULL,'{"customer":"Zoë"}','order-1');
INSERT INTO "sagas" VALUES(X'019B76DAAFD07C6EB362000000000002','order-fulfillment',X'FCCF246B8117ACD4D09DB7276414AEFCCBAEB6A9709C2920328D9E4BA6D01901','compensated','the carrier said "no"',1767225602000,1767225607000,1767226602000,NULL,NULL,NULL);
CREATE TABLE start_keys (
        key            TEXT PRIMARY KEY,
        saga           BLOB NOT NULL,
        payload_digest BLOB NOT NULL,
        at             INTEGER NOT NULL
    ) WITHOUT ROWID;
INSERT INTO "start_keys" VALUES('order-1',X'019B76DAABE87E37B9B1000000000001',X'239F59ED55E737C77147CF55AD0C1B030B6D7EE748A7426952F9B852D5A935E5',1767225601000);
CREATE UNIQUE INDEX events_stream ON events (stream, version);
CREATE INDEX sagas_live ON sagas (id) WHERE ended_at IS NULL;
CREATE INDEX sagas_status ON sagas (status, id);
CREATE INDEX sagas_definition ON sagas (definition, status, id);
COMMIT;
