//! The HTTP API over the network: a server on a real socket, a client that writes raw bytes.

mod access;
mod bounds;
mod client;
mod collections;
mod description;
mod documents;
mod hostile_lines;
mod limits;
mod loading;
mod rejections;
mod roles;
mod searching;
mod server;
mod stopping;
mod tls;
