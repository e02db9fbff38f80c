//! Counters of a Redis server, read before and after a measurement.

use std::ops::{Add, Sub};

use anyhow::{Context, Result};

use crate::{machine, redis_server::RedisServer};

/// Counters since a server started, or their difference between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct NodeCounters {
    /// CPU seconds.
    pub(super) cpu_s: f64,
    pub(super) keys: f64,
    /// Bytes in use (`used_memory`).
    pub(super) used_memory: f64,
    /// Calls of `FT.SEARCH`, and the microseconds spent in them.
    pub(super) searches: f64,
    pub(super) search_us: f64,
    /// Bytes received from clients and sent to them. The reply to a reading, a few kilobytes, counts in the
    /// next reading.
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

/// Reads the counters of a server.
pub(super) fn read(node: &RedisServer) -> Result<NodeCounters> {
    let info = node.key_values(&["INFO", "memory", "stats", "commandstats", "keyspace"])?;
    let number = |name: &str| {
        let value = info.get(name).with_context(|| format!("INFO has no {name}"))?;
        value.parse::<f64>().with_context(|| format!("INFO's {name} is {value}"))
    };
    // Both are absent until the first search and the first key.
    let search_stats = info.get("cmdstat_FT.SEARCH").map_or("", String::as_str);
    let key_stats = info.get("db0").map_or("", String::as_str);
    Ok(NodeCounters {
        cpu_s: machine::cpu_seconds(node.pid())?,
        keys: part(key_stats, "keys")?,
        used_memory: number("used_memory")?,
        searches: part(search_stats, "calls")?,
        search_us: part(search_stats, "usec")?,
        bytes_in: number("total_net_input_bytes")?,
        bytes_out: number("total_net_output_bytes")?,
    })
}

/// One number of `name=number,...`; 0 if it is absent.
fn part(parts: &str, name: &str) -> Result<f64> {
    let value_of = |part: &'_ str| part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    match parts.split(',').find_map(value_of) {
        Some(value) => value.parse().with_context(|| format!("INFO's {name} in {parts}")),
        None => Ok(0.0),
    }
}

impl NodeCounters {
    fn combine(self, other: NodeCounters, with: impl Fn(f64, f64) -> f64) -> NodeCounters {
        NodeCounters {
            cpu_s: with(self.cpu_s, other.cpu_s),
            keys: with(self.keys, other.keys),
            used_memory: with(self.used_memory, other.used_memory),
            searches: with(self.searches, other.searches),
            search_us: with(self.search_us, other.search_us),
            bytes_in: with(self.bytes_in, other.bytes_in),
            bytes_out: with(self.bytes_out, other.bytes_out),
        }
    }
}

impl Add for NodeCounters {
    type Output = NodeCounters;

    fn add(self, other: NodeCounters) -> NodeCounters {
        self.combine(other, f64::add)
    }
}

impl Sub for NodeCounters {
    type Output = NodeCounters;

    fn sub(self, before: NodeCounters) -> NodeCounters {
        self.combine(before, f64::sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_by_its_full_name() {
        let parts = "calls=12,usec=340,usec_per_call=28.33";
        assert_eq!(part(parts, "usec").unwrap(), 340.0);
        assert_eq!(part(parts, "usec_per_call").unwrap(), 28.33);
        assert_eq!(part("", "calls").unwrap(), 0.0);
        assert!(part("calls=many", "calls").is_err());
    }
}
