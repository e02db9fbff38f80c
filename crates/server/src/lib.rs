//! Nearfield's network interfaces: [`http`] translates requests into verbs of [`service::Service`],
//! [`access`] says who may make them, [`serve`] listens, terminates TLS and stops gracefully.

pub mod access;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod http;
pub mod serve;
pub mod ui;
