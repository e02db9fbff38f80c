//! The limit of open files, which includes connections.

/// Files other than connections of clients: the store, its snapshots, connections to a Redis.
const OTHER_FILES: u64 = 128;

/// How many of the `wanted` connections the limit of open files permits, next to `extra_connections`. Raises the soft
/// limit (`ulimit -n`, often 1024) as far as needed and possible.
#[cfg(target_os = "linux")]
pub(super) fn connection_limit(wanted: usize, extra_connections: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + extra_connections as u64 + OTHER_FILES;
    if limit.current.is_some_and(|files| files < needed) {
        let before = limit.current;
        limit.current = limit.maximum.map_or(Some(needed), |files| Some(files.min(needed)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("cannot raise the limit of open files: {error}");
            limit.current = before;
        }
    }
    let connections =
        limit.current.map_or(wanted, |files| connections_within(files, wanted, extra_connections));
    if connections < wanted {
        tracing::warn!(
            "connections_max is {wanted}, but the limit of {} open files permits only {connections} connections: raise \
             the limit (ulimit -n, or LimitNOFILE of the service)",
            limit.current.unwrap_or_default()
        );
    }
    connections
}

/// Other systems: the limit is not checked.
#[cfg(not(target_os = "linux"))]
pub(super) fn connection_limit(wanted: usize, _extra_connections: usize) -> usize {
    wanted
}

/// How many of the `wanted` connections `files` permit; at least one.
#[cfg(any(target_os = "linux", test))]
fn connections_within(files: u64, wanted: usize, extra_connections: usize) -> usize {
    let available = files.saturating_sub(extra_connections as u64 + OTHER_FILES).max(1);
    usize::try_from(available).unwrap_or(usize::MAX).min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_other_purposes() {
        assert_eq!(connections_within(20_000, 1024, 32), 1024);
        assert_eq!(connections_within(1024, 1024, 32), 1024 - 32 - 128);
        assert_eq!(connections_within(1024 + 32 + 128, 1024, 32), 1024);
        assert_eq!(connections_within(64, 1024, 32), 1);
        assert_eq!(connections_within(u64::MAX, 65_536, 32), 65_536);
    }
}
