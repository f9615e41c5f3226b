PRAGMA application_id = 1349274727;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE attempts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, owner INTEGER NOT NULL, began REAL NOT NULL, ended REAL,
    result TEXT, billed INTEGER, input_tokens INTEGER, output_tokens INTEGER, most_usd REAL, usd REAL,
    request_id TEXT, raw TEXT, batch TEXT);
INSERT INTO "attempts" VALUES(1,'892e3675f92d4fa4c0a131609af633d27bd7a321db8936961c01d67d2189c62a',1,1.79531633182927012441e+09,1.79531633183079671859e+09,'answered',1,10,3,0.5,1.6e-05,'r','{"raw": 1}',NULL);
INSERT INTO "attempts" VALUES(2,'e84285ae162e22e5945df9130836eaa43cdc513946b44b49ca393c7c0925fd01',1,1.79531633183215641978e+09,1.79531633183515834813e+09,'answered',1,10,3,0.5,NULL,'r','{"raw": 1}',NULL);
INSERT INTO "attempts" VALUES(3,'9c25e38aa1d0ae48cd368b37e81b9b8dcc649c10f0254a1cfa14885dec8053d6',1,1.79531633183620142934e+09,1.79531633183675312995e+09,'no answer within 9 s',NULL,NULL,NULL,0.25,NULL,NULL,NULL,NULL);
CREATE TABLE batches(nonce TEXT PRIMARY KEY, number TEXT, owner INTEGER NOT NULL, began REAL NOT NULL, ended REAL);
CREATE TABLE budget(usd REAL NOT NULL);
INSERT INTO "budget" VALUES(0.750016);
CREATE TABLE processes(
    id INTEGER PRIMARY KEY, machine TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, beat REAL);
INSERT INTO "processes" VALUES(1,'a machine',13132,'3975139',NULL);
CREATE TABLE questions(
    key TEXT NOT NULL, parser TEXT NOT NULL, args TEXT NOT NULL, version INTEGER, value TEXT, reason TEXT,
    PRIMARY KEY(key, parser, args)) WITHOUT ROWID;
INSERT INTO "questions" VALUES('2124bc94f75aaee3fc165ed2ade781f27c183fcb67f5f641dd9be1f2e4f03349','rating','{"high":7,"low":1}',NULL,NULL,NULL);
INSERT INTO "questions" VALUES('892e3675f92d4fa4c0a131609af633d27bd7a321db8936961c01d67d2189c62a','rating','{"high":7,"low":1}',1,'6',NULL);
INSERT INTO "questions" VALUES('9c25e38aa1d0ae48cd368b37e81b9b8dcc649c10f0254a1cfa14885dec8053d6','rating','{"high":7,"low":1}',NULL,NULL,NULL);
INSERT INTO "questions" VALUES('e84285ae162e22e5945df9130836eaa43cdc513946b44b49ca393c7c0925fd01','rating','{"high":7,"low":1}',1,NULL,'no rating');
CREATE TABLE requests(
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, body TEXT NOT NULL, sample INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'planned', owner INTEGER, text TEXT, finish_reason TEXT, reason TEXT);
INSERT INTO "requests" VALUES('892e3675f92d4fa4c0a131609af633d27bd7a321db8936961c01d67d2189c62a','openai','m','{"max_tokens":9,"messages":[{"content":"parsed","role":"user"}],"model":"m","temperature":0.0}',0,'answered',NULL,'Rating: 6','stop',NULL);
INSERT INTO "requests" VALUES('e84285ae162e22e5945df9130836eaa43cdc513946b44b49ca393c7c0925fd01','openai','m','{"max_tokens":9,"messages":[{"content":"unparsed","role":"user"}],"model":"m","temperature":0.0}',0,'answered',NULL,'Hm.','stop',NULL);
INSERT INTO "requests" VALUES('9c25e38aa1d0ae48cd368b37e81b9b8dcc649c10f0254a1cfa14885dec8053d6','openai','m','{"max_tokens":9,"messages":[{"content":"failed","role":"user"}],"model":"m","temperature":0.0}',0,'failed',NULL,NULL,NULL,'no answer within 9 s');
INSERT INTO "requests" VALUES('2124bc94f75aaee3fc165ed2ade781f27c183fcb67f5f641dd9be1f2e4f03349','openai','m','{"max_tokens":9,"messages":[{"content":"planned","role":"user"}],"model":"m","temperature":0.0}',0,'planned',NULL,NULL,NULL,NULL);
CREATE INDEX requests_owner ON requests(owner) WHERE owner IS NOT NULL;
CREATE INDEX attempts_key ON attempts(key);
CREATE INDEX attempts_open ON attempts(owner) WHERE ended IS NULL;
CREATE INDEX attempts_batch ON attempts(batch) WHERE batch IS NOT NULL;
COMMIT;
