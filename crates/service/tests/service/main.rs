//! The service on a data directory and on Redis, without HTTP.

mod collections;
mod concurrency;
mod coordinator_cluster;
mod copying;
mod documents;
mod fixture;
mod real_model;
mod redis;
mod searching;
