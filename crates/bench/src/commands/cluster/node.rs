//! What a server says of itself, before and after it was put to work.

use std::ops::{Add, Sub};

use anyhow::{Context, Result};

use crate::{machine, redis_server::RedisServer};

/// Counts since a server started, or between two looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Processor seconds.
    pub(super) cpu_s: f64,
    pub(super) keys: f64,
    /// Bytes in use (`used_memory`).
    pub(super) used_memory: f64,
    /// Calls of `FT.SEARCH`, and microseconds in them.
    pub(super) searches: f64,
    pub(super) search_us: f64,
    /// Bytes received from clients and sent to them; the reply to a look, a few kilobytes, counts
    /// in the next.
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

/// Looks at a server.
pub(super) fn look(node: &RedisServer) -> Result<Counts> {
    let info = node.pairs(&["INFO", "memory", "stats", "commandstats", "keyspace"])?;
    let number = |name: &str| {
        let value = info.get(name).with_context(|| format!("INFO has no {name}"))?;
        value.parse::<f64>().with_context(|| format!("INFO's {name} is {value}"))
    };
    // Both are missing until there is something to tell.
    let of_search = info.get("cmdstat_FT.SEARCH").map_or("", String::as_str);
    let of_keys = info.get("db0").map_or("", String::as_str);
    Ok(Counts {
        cpu_s: machine::cpu_seconds(node.pid())?,
        keys: part(of_keys, "keys")?,
        used_memory: number("used_memory")?,
        searches: part(of_search, "calls")?,
        search_us: part(of_search, "usec")?,
        bytes_in: number("total_net_input_bytes")?,
        bytes_out: number("total_net_output_bytes")?,
    })
}

/// One number of `name=number,...`; 0 if there is none.
fn part(parts: &str, name: &str) -> Result<f64> {
    let of_name = |part: &'_ str| part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
    match parts.split(',').find_map(of_name) {
        Some(value) => value.parse().with_context(|| format!("INFO's {name} in {parts}")),
        None => Ok(0.0),
    }
}

impl Counts {
    fn combine(self, other: Counts, with: impl Fn(f64, f64) -> f64) -> Counts {
        Counts {
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

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        self.combine(other, f64::add)
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        self.combine(before, f64::sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_by_its_whole_name() {
        let parts = "calls=12,usec=340,usec_per_call=28.33";
        assert_eq!(part(parts, "usec").unwrap(), 340.0);
        assert_eq!(part(parts, "usec_per_call").unwrap(), 28.33);
        assert_eq!(part("", "calls").unwrap(), 0.0);
        assert!(part("calls=many", "calls").is_err());
    }
}
