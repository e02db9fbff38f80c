//! Limits and defaults of requests, each stated once: documentation, OpenAPI and command line take them from here.

pub use engine::{DIM_MAX, EF_MAX, EF_RANGE, FIELDS_MAX, K_MAX, M_RANGE, WINDOW_MAX};

/// Hits returned by a search that does not say how many.
pub const K_DEFAULT: usize = 10;

/// The same for `/search` and `/kb/search`, as in the article.
pub const ARTICLE_K_DEFAULT: usize = 5;

/// Bytes of a query text. Models read far less.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Searches per call of [`Service::search_many`](crate::Service::search_many).
pub const SEARCHES_MAX: usize = 100;

/// Documents per call of [`Service::put`](crate::Service::put).
pub const DOCUMENTS_MAX: usize = 10_000;

/// Documents per page of [`Service::scroll`](crate::Service::scroll), and keys per page of
/// [`Service::scan`](crate::Service::scan).
pub const PAGE_MAX: usize = 1000;

/// Documents per page where the caller does not say how many.
pub const PAGE_DEFAULT: usize = 100;

/// Links per node of an HNSW graph where the schema does not say how many.
pub const M_DEFAULT: usize = 16;

/// Candidates kept while building an HNSW graph where the schema does not say how many.
pub const EF_CONSTRUCTION_DEFAULT: usize = 200;

/// Candidates kept while searching an HNSW graph where the schema does not say how many.
pub const EF_SEARCH_DEFAULT: usize = 80;

/// Bytes of a document's id.
pub const ID_BYTES_MAX: usize = 512;

/// Latest expiry of a document in Unix milliseconds: the end of the year 9999. Many programs cannot represent later
/// times.
pub const EXPIRES_AT_MS_MAX: u64 = 253_402_300_799_999;
