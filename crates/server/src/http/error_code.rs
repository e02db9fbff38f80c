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
    Body = "body", [400], "the connection broke off inside the body";
    BodyGzip = "body-gzip", [400], "the body is not valid gzip, or is cut short";
    BodySize = "body-size", [413], "the body is larger than allowed: JSON 2 MiB, NDJSON 64 MiB, both uncompressed";
    BodyTimeout = "body-timeout", [408], "the body paused for `body_timeout_ms`, or stayed below 4 KiB per second for as long";
    ContentEncoding = "content-encoding", [415], "`Content-Encoding` is neither `gzip` nor `identity`";
    ContentType = "content-type", [415], "`Content-Type` is not JSON (or, for documents, NDJSON) in UTF-8";
    Header = "header", [400], "`X-Timeout-Ms`, `If-Match` or `If-None-Match` has an invalid value";
    Host = "host", [400, 421], "400: `Host` is missing, repeated or malformed. 421: the server has no API key and was called by a name that is not loopback";
    Json = "json", [400], "the body is not JSON";
    JsonStructure = "json-structure", [422], "the JSON has an unknown member or a value of the wrong type";
    LineSize = "line-size", [413], "a line of NDJSON is longer than 2 MiB";
    MethodNotAllowed = "method-not-allowed", [405], "the path has no such method";
    Parameter = "parameter", [400], "a query parameter has a value of the wrong type";
    ParameterRepeated = "parameter-repeated", [400], "a query parameter is repeated";
    ParameterUnknown = "parameter-unknown", [400], "the route has no such query parameter";
    Path = "path", [400], "the path is not UTF-8 or has an invalid percent escape";
    PathNotFound = "path-not-found", [404], "there is no such path";
    QueryString = "query-string", [400], "the query string is not UTF-8 or has an invalid percent escape";
    UrlLength = "url-length", [414], "path and query are longer than 8 KiB";

    // Access
    Unauthorized = "unauthorized", [401], "no API key, or an unknown one";
    KeyRepeated = "key-repeated", [400], "two keys in one request";
    Forbidden = "forbidden", [403], "the key's role or collections do not permit this";
    Origin = "origin", [403], "a web page of another origin tried to change something";
    RateLimit = "rate-limit", [429], "more requests per second than `rate_limit` allows this caller";
    TooManyWrongKeys = "too-many-wrong-keys", [429], "ten wrong keys within a minute came from this address; its keys are not checked for now";

    // Collections and aliases
    CollectionNotFound = "collection-not-found", [404], "no collection or alias has this name";
    CollectionAmbiguous = "collection-ambiguous", [400], "no collection was named and there are several";
    CollectionExists = "collection-exists", [409], "the collection exists with another schema";
    CollectionSwitching = "collection-switching", [503], "the collection was switched to another version repeatedly during the search";
    CollectionRebuilding = "collection-rebuilding", [409], "a rebuild of the collection is running, or none is where one was expected";
    SchemaConflict = "schema-conflict", [409], "on a Redis, two collections over the same keys disagree on a vector field";
    Name = "name", [422], "the name is not allowed for a collection or alias";
    NameTaken = "name-taken", [409], "the name belongs to a collection, or to an alias";
    Rebuild = "rebuild", [422], "a Redis cannot rebuild a collection";
    Schema = "schema", [422], "the schema is invalid; `at` names the field";
    ModelName = "model-name", [422], "the model's name is not allowed";
    ModelMissing = "model-missing", [503], "the model's files are not in the models directory";
    ModelUnreadable = "model-unreadable", [503], "the model's files cannot be loaded";
    VectorType = "vector-type", [422], "a field computed by a model has type INT8";

    // Documents
    CollectionsChanging = "collections-changing", [409], "a collection changed while the document was written";
    Conflict = "conflict", [409, 412], "the document is not the one expected; 412 where the request had `If-Match` or `If-None-Match`";
    Contended = "contended", [409], "others kept changing the document, or the documents that match, while it was written";
    Document = "document", [422], "the document is larger than allowed or has too many fields";
    DocumentNotFound = "document-not-found", [404, 412], "there is no such document; 412 with `If-Match: *`";
    DocumentType = "document-type", [422], "something other than a JSON object in place of a document";
    FieldKind = "field-kind", [422], "a tag list, number or vector for a field of another kind";
    FieldRepeated = "field-repeated", [422], "a field is repeated";
    FieldValue = "field-value", [422], "the value does not fit the field";
    Id = "id", [422], "the id is empty, longer than 512 bytes, or has control characters";
    IdMismatch = "id-mismatch", [422], "the id in the body differs from that in the path";
    IdMissing = "id-missing", [422], "a document without an `id`";
    KeyTaken = "key-taken", [409], "on a Redis, the document's key holds something that is not a hash";
    Number = "number", [422], "a number is not finite";
    ResultsSize = "results-size", [413], "more than 64 MiB of results in a JSON answer";
    Tag = "tag", [422], "a tag is empty, or contains the field's separator";
    TextEmpty = "text-empty", [422], "there is no text to embed, or to search for";
    TooManyDocuments = "too-many-documents", [422], "more than 10,000 documents in a JSON body";
    TooManyFields = "too-many-fields", [422], "more than 1,024 fields in a document, or to return";
    Ttl = "ttl", [422], "`ttl_s` is not a positive number of seconds";
    VectorDimensions = "vector-dimensions", [422], "the vector, or the model, has another dimension than the field";
    VectorValue = "vector-value", [422], "a vector has NaN, infinity, or only zeros under cosine";

    // Searches and lists
    Cursor = "cursor", [422], "`after` is not a cursor of this store";
    EfSearch = "ef-search", [422], "`ef_search` is not 1 to 4096";
    FieldAmbiguous = "field-ambiguous", [422], "the collection has several vector fields";
    FieldNotEmbedded = "field-not-embedded", [422], "a text search on a field that no model computes";
    FieldNotFound = "field-not-found", [422], "the collection has no such vector field";
    Filter = "filter", [422], "the filter does not parse, names an unknown field, or is too long or too deep";
    K = "k", [422], "`k` is not 1 to 1000";
    Limit = "limit", [422], "a limit of a list is not 1 to 1000, or a search exceeds a limit of the engine";
    MinScore = "min-score", [422], "`min_score` is not finite";
    Offset = "offset", [422], "`offset` + `k` exceeds 10,000";
    ResponseSize = "response-size", [422], "the documents of the answer exceed 32 MiB";
    ScrollInterrupted = "scroll-interrupted", [409], "a Redis Cluster moved slots during a scroll";
    Search = "search", [422], "neither or both of `text` and `vector`, or `searches` combined with other members";
    TextTooLong = "text-too-long", [422], "the text to search for is longer than 64 KiB";
    TooManySearches = "too-many-searches", [422], "more than 100 searches in one request";

    // Server state
    Starting = "starting", [503], "the store is being opened";
    Closing = "closing", [503], "the server is stopping";
    Connections = "connections", [503], "all `connections_max` connections are in use, or the server is stopping";
    Overloaded = "overloaded", [503], "more searches wait than can be answered in `queue_wait_ms`, or `queue_max` jobs wait";
    WriteQueueFull = "write-queue-full", [503], "too many writes wait for the disk";
    BackupRunning = "backup-running", [503], "another backup is running";
    BackupRedis = "backup-redis", [422], "the store is a Redis, which makes its own backups";
    Backup = "backup", [500], "the backup failed";
    Deadline = "deadline", [504], "the request's time (`X-Timeout-Ms`, else `timeout_ms`) is over";
    Cancelled = "cancelled", [503], "the client closed the connection";
    MetricsOff = "metrics-off", [503], "the process records no metrics";
    InsufficientStorage = "insufficient-storage", [507], "the disk has no room, or less than `disk_reserve_mib` would be left";
    MemoryFull = "memory-full", [507], "collections hold `memory_max_mib`";
    ReadOnly = "read-only", [503], "a sync failed, so writes are refused until a restart";
    Store = "store", [500], "the store failed or is damaged";
    Internal = "internal", [500], "a bug; the log has the panic";

    // A Redis as the store
    RedisUnavailable = "redis-unavailable", [503], "a Redis does not answer, is loading or failing over; `detail` names it";
    RedisBusy = "redis-busy", [503], "too many commands wait for a Redis";
    RedisRefused = "redis-refused", [503], "a Redis refuses the user, or cannot save its data";
    RedisReadOnly = "redis-read-only", [503], "the server is a replica";
    RedisUnsupported = "redis-unsupported", [503], "the server lacks something Nearfield needs";
    RedisFull = "redis-full", [507], "Redis is out of memory";
    RedisNotReplicated = "redis-not-replicated", [503], "the write was made but did not reach `wait_replicas` replicas in time";
    IndexMissing = "index-missing", [503], "a shard has no index of the collection yet";
    IndexIncomplete = "index-incomplete", [503], "a shard's index is still reading documents in";
    MetadataDamaged = "metadata-damaged", [503], "the collection's metadata in Redis cannot be read";
    Redis = "redis", [500], "Redis answered with an unexpected error or reply";
    RedisReply = "redis-reply", [500], "Redis answered with an unexpected error or reply";

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
