//! The engine from outside: what is written is there, found, filtered, ended and kept.

mod collections;
mod documents;
mod expiry;
mod model;
mod reopening;
mod searching;
mod snapshots;
mod together;
mod world;
