//! JSON bodies of requests and responses.

pub(super) mod binary;
pub(super) mod bounded_vec;
pub(super) mod collections;
pub(crate) mod doctor;
pub(super) mod document;
pub(super) mod health;
pub(super) mod object;
pub(super) mod schema;
pub(super) mod search;
pub(super) mod value;
pub(super) mod write;
