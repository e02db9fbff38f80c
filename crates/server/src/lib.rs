//! Nearfield's network interfaces: [`http`] translates requests into calls of [`service::Service`], [`access`] controls
//! who may perform which action, and [`serve`] listens, terminates TLS and stops gracefully.

pub mod access;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod http;
pub mod serve;
pub mod ui;
