//! The error codes of the HTTP API. `docs/errors.md` documents them; a test keeps the two equal.

use std::fmt::Write;

use axum::http::StatusCode;

macro_rules! error_codes {
    ($($name:ident = $code:literal, [$($status:literal),+], $meaning:literal;)*) => {
        /// Why a request fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ErrorCode {
            $(#[doc = $meaning] $name,)*
        }

        impl ErrorCode {
            /// All codes.
            pub(crate) const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code in responses.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $code,)* }
            }

            /// The HTTP statuses it comes with, the usual one first.
            fn statuses(self) -> &'static [u16] {
                match self { $(ErrorCode::$name => &[$($status),+],)* }
            }

            /// What it means, in one line.
            fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => $meaning,)* }
            }
        }
    };
}

error_codes! {
    // The request cannot be read
    Body = "body", [400], "the connection was closed before the body was complete";
    BodyGzip = "body-gzip", [400], "the body is not valid gzip, or is incomplete";
    BodySize = "body-size", [413], "the body is larger than allowed: JSON 2 MiB, NDJSON 64 MiB, both uncompressed";
    BodyTimeout = "body-timeout", [408], "the body paused for `body_timeout_ms`, or stayed below 4 KiB per second for as long";
    ContentEncoding = "content-encoding", [415], "`Content-Encoding` is neither `gzip` nor `identity`";
    ContentType = "content-type", [415], "`Content-Type` is not JSON (or, for documents, NDJSON) in UTF-8";
    Header = "header", [400], "`X-Timeout-Ms`, `If-Match` or `If-None-Match` has an invalid value";
    Host = "host", [400, 421], "400: `Host` is missing, repeated or malformed. 421: the server has no API key, and the request addresses it by a name that is not loopback";
    Json = "json", [400], "the body is not JSON";
    JsonStructure = "json-structure", [422], "the JSON has an unknown member or a value of the wrong type";
    LineSize = "line-size", [413], "a line of NDJSON is longer than 2 MiB";
    MethodNotAllowed = "method-not-allowed", [405], "the path does not support this method";
    Parameter = "parameter", [400], "a query parameter has a value of the wrong type";
    ParameterRepeated = "parameter-repeated", [400], "a query parameter is repeated";
    ParameterUnknown = "parameter-unknown", [400], "the route has no such query parameter";
    Path = "path", [400], "a name in the path is not UTF-8";
    PathNotFound = "path-not-found", [404], "the path does not exist";
    QueryString = "query-string", [400], "the query string is not UTF-8 or has an invalid percent escape";
    UrlLength = "url-length", [414], "path and query are longer than 8 KiB";

    // Access
    Unauthorized = "unauthorized", [401], "no API key was sent, or an unknown one";
    KeyRepeated = "key-repeated", [400], "the request has two API keys";
    Forbidden = "forbidden", [403], "the key's role or collections do not permit this";
    Origin = "origin", [403], "a web page of another origin tried to change data";
    RateLimit = "rate-limit", [429], "the caller exceeded `rate_limit` requests per second";
    TooManyWrongKeys = "too-many-wrong-keys", [429], "this address sent ten wrong keys within a minute; its keys are not checked for now";

    // Collections and aliases
    CollectionNotFound = "collection-not-found", [404], "no collection or alias has this name";
    CollectionAmbiguous = "collection-ambiguous", [400], "the request names no collection, and there are several";
    CollectionExists = "collection-exists", [409], "the collection exists with another schema";
    CollectionSwitching = "collection-switching", [503], "the collection was switched to another version repeatedly during the search";
    PrefixOverlap = "prefix-overlap", [409], "the default prefix of a new collection overlaps with the prefixes of another one, or `DELETE` of a collection that overlaps with another does not say what to do with its documents";
    CollectionRebuilding = "collection-rebuilding", [409], "the collection is being rebuilt; or it is not, where a rebuild was expected";
    SchemaConflict = "schema-conflict", [409], "in Redis, two collections over the same keys disagree on a vector field";
    Name = "name", [422], "the name is not valid for a collection or alias";
    NameTaken = "name-taken", [409], "the name is in use by another collection or alias";
    Rebuild = "rebuild", [422], "collections in Redis cannot be rebuilt";
    Schema = "schema", [422], "the schema is invalid; `at` names the field";
    ModelName = "model-name", [422], "the model's name is not valid";
    ModelMissing = "model-missing", [503], "the model is not installed in the models directory";
    ModelUnreadable = "model-unreadable", [503], "the model's files cannot be loaded";
    VectorType = "vector-type", [422], "a field that is computed by a model has type INT8";

    // Documents
    CollectionsChanging = "collections-changing", [409], "a collection was created or changed while the document was being written";
    Conflict = "conflict", [409, 412], "the document is not in the expected state; 412 where the request had `If-Match` or `If-None-Match`";
    Contended = "contended", [409], "other writers kept changing the document, or the documents that match";
    Document = "document", [422], "the document is larger than allowed or has too many fields";
    DocumentNotFound = "document-not-found", [404, 412], "the document does not exist; 412 with `If-Match: *`";
    DocumentType = "document-type", [422], "a document is not a JSON object";
    FieldKind = "field-kind", [422], "the value's type does not fit the kind of the field";
    FieldRepeated = "field-repeated", [422], "a field is repeated";
    FieldValue = "field-value", [422], "the value is not valid for the field";
    Id = "id", [422], "the id is empty, longer than 512 bytes, or has control characters";
    IdMismatch = "id-mismatch", [422], "the id in the body differs from that in the path";
    IdMissing = "id-missing", [422], "a document has no `id`";
    KeyTaken = "key-taken", [409], "the document's key in Redis holds a value that is not a hash";
    Number = "number", [422], "a number is not finite";
    ResultsSize = "results-size", [413], "the results exceed 64 MiB as one JSON response";
    Tag = "tag", [422], "a tag is empty, or contains the field's separator";
    TextEmpty = "text-empty", [422], "the text to embed or to search for is empty";
    TooManyDocuments = "too-many-documents", [422], "a JSON body has more than 10,000 documents";
    TooManyFields = "too-many-fields", [422], "a document, or the list of fields to return, has more than 1,024 fields";
    Ttl = "ttl", [422], "`ttl_s` is not a positive number of seconds, or ends after the year 9999";
    VectorDimensions = "vector-dimensions", [422], "the vector, or the model, does not have the dimension of the field";
    VectorValue = "vector-value", [422], "a vector contains NaN or infinity, or is all zeros in a field with cosine distance";

    // Searches and lists
    Cursor = "cursor", [422], "`after` was not issued by this store";
    EfSearch = "ef-search", [422], "`ef_search` is not between 1 and 4096";
    FieldAmbiguous = "field-ambiguous", [422], "the collection has several vector fields";
    FieldNotEmbedded = "field-not-embedded", [422], "a text search requires a field that a model computes";
    FieldNotFound = "field-not-found", [422], "the schema has no such field, or a search names a field that holds no vectors";
    Filter = "filter", [422], "the filter does not parse, names an unknown field, or is too long or too deep";
    K = "k", [422], "`k` is not between 1 and 1000";
    Limit = "limit", [422], "the limit of a list is not between 1 and 1000, or a search exceeds a limit of the engine";
    MinScore = "min-score", [422], "`min_score` is not finite";
    Offset = "offset", [422], "`offset` + `k` exceeds 10,000";
    ResponseSize = "response-size", [422], "the documents of the response exceed 32 MiB";
    ScrollInterrupted = "scroll-interrupted", [409], "a Redis Cluster moved slots while documents were being listed";
    Search = "search", [422], "a search has neither or both of `text` and `vector`, or `searches` combined with other members";
    TextTooLong = "text-too-long", [422], "the text to search for is longer than 64 KiB";
    TooManySearches = "too-many-searches", [422], "a request has more than 100 searches";

    // Server state
    Starting = "starting", [503], "the store is being opened";
    Closing = "closing", [503], "the server is stopping";
    Connections = "connections", [503], "all `connections_max` connections are in use, or the server is stopping";
    Overloaded = "overloaded", [503], "the queue is full (`queue_max` jobs), or a new search would wait longer than `queue_wait_ms`";
    ResponseMemory = "response-memory", [503], "responses that clients have not read hold `response_memory_mib`, or this caller's share of it";
    WriteQueueFull = "write-queue-full", [503], "the write queue is full";
    BackupRunning = "backup-running", [503], "another backup is running";
    BackupRedis = "backup-redis", [422], "Redis makes its own backups";
    Backup = "backup", [500], "the backup failed";
    Deadline = "deadline", [504], "the request's time limit (`X-Timeout-Ms`, otherwise `timeout_ms`) has passed";
    Cancelled = "cancelled", [503], "the client closed the connection";
    MetricsOff = "metrics-off", [503], "this process does not record metrics";
    InsufficientStorage = "insufficient-storage", [507], "the disk is full, or less than `disk_reserve_mib` would remain free";
    MemoryFull = "memory-full", [507], "collections use `memory_max_mib` of memory";
    ReadOnly = "read-only", [503], "writing data to disk failed, or the store file was moved, deleted or replaced; writes are rejected until a restart";
    Store = "store", [500], "the store failed or is damaged";
    Internal = "internal", [500], "a bug; the log has the details";

    // A Redis as the store
    RedisUnavailable = "redis-unavailable", [503], "a Redis server does not answer, is loading its data or is failing over; `detail` names it";
    RedisBusy = "redis-busy", [503], "too many commands are waiting for a Redis server";
    RedisRefused = "redis-refused", [503], "Redis rejected the user's credentials or permissions, or cannot save its data";
    RedisReadOnly = "redis-read-only", [503], "the Redis server is a replica";
    RedisUnsupported = "redis-unsupported", [503], "the Redis server lacks a feature that Nearfield requires";
    RedisFull = "redis-full", [507], "Redis is out of memory";
    RedisNotReplicated = "redis-not-replicated", [503], "the write was applied, but did not reach `wait_replicas` replicas in time";
    IndexMissing = "index-missing", [503], "the index of the collection does not exist yet on a shard";
    IndexIncomplete = "index-incomplete", [503], "a shard is still indexing existing documents";
    MetadataDamaged = "metadata-damaged", [503], "the collection's metadata in Redis cannot be read";
    Redis = "redis", [500], "Redis returned an unexpected error or reply";
    RedisReply = "redis-reply", [500], "Redis returned an unexpected error or reply";

    // Codes outside HTTP
}

impl ErrorCode {
    /// The code that responses write as `code`.
    pub(crate) fn parse(code: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|listed| listed.as_str() == code)
    }

    /// The usual HTTP status.
    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.statuses()[0]).expect("a listed status is valid")
    }

    /// Whether it may come with `status`.
    pub(crate) fn has_status(self, status: StatusCode) -> bool {
        self.statuses().contains(&status.as_u16())
    }

    /// A list of all codes with their statuses and meanings, in Markdown.
    pub(super) fn list() -> String {
        let mut list = "A stable identifier for programs:\n".to_owned();
        for code in ErrorCode::ALL {
            let statuses: Vec<String> = code.statuses().iter().map(u16::to_string).collect();
            let (name, statuses, meaning) = (code.as_str(), statuses.join(", "), code.meaning());
            write!(list, "\n- `{name}` ({statuses}): {meaning}").expect("writing to a String");
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    /// Statuses and meaning by code.
    type Codes = BTreeMap<String, (String, String)>;

    fn repository() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    /// The tables of `docs/errors.md`: of the HTTP API, and of codes outside HTTP.
    fn tables() -> (String, String) {
        let text = fs::read_to_string(repository().join("docs/errors.md")).unwrap();
        let (http, outside) =
            text.split_once("## Codes outside HTTP").expect("the document has this section");
        (http.to_owned(), outside.to_owned())
    }

    /// The rows `| codes | statuses | meaning | what to do |` of the HTTP API.
    fn documented() -> Codes {
        let mut codes = Codes::new();
        for row in tables().0.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            for code in cells[1].split(", ") {
                let row = (cells[2].to_owned(), cells[3].to_owned());
                let previous = codes.insert(code.trim_matches('`').to_owned(), row);
                assert_eq!(previous, None, "{code} is documented twice");
            }
        }
        codes
    }

    #[test]
    fn the_documentation_has_every_code_and_no_other() {
        let listed: Codes = ErrorCode::ALL
            .iter()
            .map(|code| {
                let statuses: Vec<String> = code.statuses().iter().map(u16::to_string).collect();
                (code.as_str().to_owned(), (statuses.join(", "), code.meaning().to_owned()))
            })
            .collect();
        assert_eq!(listed.len(), ErrorCode::ALL.len(), "a code is listed twice");
        assert_eq!(listed, documented());
    }

    #[test]
    fn every_code_of_the_service_is_documented() {
        let outside = tables().1;
        let mut files = vec![repository().join("crates/service/src")];
        let mut found = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for call in text.split("Error::").skip(1) {
                let Some((name, arguments)) = call.split_once('(') else { continue };
                let code = match name {
                    "new" => arguments.split_once(',').map(|(_, rest)| rest.trim_start()),
                    "invalid" | "unavailable" => Some(arguments.trim_start()),
                    _ => None,
                };
                let Some(code) = code.and_then(|rest| rest.strip_prefix('"')?.split('"').next()) else {
                    continue;
                };
                found += 1;
                assert!(
                    ErrorCode::parse(code).is_some() || outside.contains(&format!("| `{code}` |")),
                    "{}: the error code {code:?} is not documented",
                    path.display()
                );
            }
        }
        assert!(found > 50, "only {found} codes were found");
    }
}
