//! Hash slots, by which a Redis Cluster distributes its keys.

use redis::Value;

use super::{Error, error, reply};

/// Number of slots.
pub(super) const SLOTS: u16 = 16_384;

const CRC16: crc::Crc<u16> = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);

/// The slot of a key (Redis Cluster specification, "Key distribution model" and "Hash tags"): the hash
/// of the part between the first `{` and the next `}` if it is not empty, otherwise of the whole key.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    };
    CRC16.checksum(tag().unwrap_or(key)) % SLOTS
}

/// A hash tag that maps to a slot.
pub(super) fn hash_tag_for(expected_slot: u16) -> String {
    // Each candidate matches with a probability of 1 in 16,384, so u32 never runs out.
    let mut candidates = (0u32..).map(|number| format!("{number:x}"));
    candidates.find(|tag| slot(tag.as_bytes()) == expected_slot).expect("every slot has a tag")
}

/// A range of slots and the servers that serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    /// Host and port of the primary, then of its replicas. An empty host means the host of the server
    /// that replied.
    pub(super) servers: Vec<(String, u16)>,
}

/// Parses the reply to `CLUSTER SLOTS`; sorted by slot.
pub(super) fn parse_ranges(value: Value) -> Result<Vec<SlotRange>, Error> {
    const WHAT: &str = "CLUSTER SLOTS";
    let bound = |value: Option<Value>| {
        let number = reply::integer(value.ok_or_else(|| error::reply(WHAT))?, WHAT)?;
        u16::try_from(number).ok().filter(|slot| *slot < SLOTS).ok_or_else(|| error::reply(WHAT))
    };
    let mut ranges = Vec::new();
    for range in reply::items(value, WHAT)? {
        let mut parts = reply::items(range, WHAT)?.into_iter();
        let (first, last) = (bound(parts.next())?, bound(parts.next())?);
        let mut servers = Vec::new();
        for server in parts {
            let mut parts = reply::items(server, WHAT)?.into_iter();
            let (host, port) = (parts.next(), parts.next());
            let host = match host.ok_or_else(|| error::reply(WHAT))? {
                Value::Nil => String::new(),
                host => reply::text(host, WHAT)?,
            };
            let port = reply::integer(port.ok_or_else(|| error::reply(WHAT))?, WHAT)?;
            let port = u16::try_from(port).map_err(|_| error::reply(WHAT))?;
            // "?" means that the host is unknown.
            if host != "?" {
                servers.push((host, port));
            }
        }
        if first > last {
            return Err(error::reply(WHAT));
        }
        if !servers.is_empty() {
            ranges.push(SlotRange { first, last, servers });
        }
    }
    ranges.sort_unstable_by_key(|range| range.first);
    Ok(ranges)
}

/// Whether the server that replied to `CLUSTER NODES` is importing or migrating slots: its own line
/// then lists them in brackets.
pub(super) fn is_migrating(value: Value) -> Result<bool, Error> {
    let text = reply::text(value, "CLUSTER NODES")?;
    let is_own = |line: &&str| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself"));
    Ok(text.lines().filter(is_own).any(|line| line.contains('[')))
}

/// A `MOVED` or `ASK` redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirection {
    /// `ASK`: the slot is still being migrated there; otherwise `MOVED`.
    pub(super) is_ask: bool,
    /// An empty host means the host of the server that replied.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Redirection {
    /// Parses an error reply, if it is a redirection.
    pub(super) fn parse(value: &Value) -> Option<Redirection> {
        let Value::ServerError(reply) = value else { return None };
        let is_ask = match reply.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (_slot, address) = reply.details()?.split_once(' ')?;
        let (host, port) = address.trim().rsplit_once(':')?;
        Some(Redirection { is_ask, host: host.to_owned(), port: port.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_the_same_slots_as_redis() {
        // From CLUSTER KEYSLOT of a real server; the last is the specification's own example.
        for (key, expected) in
            [("article:1", 9128), ("{user1000}.following", slot(b"user1000")), ("123456789", 0x31c3)]
        {
            assert_eq!(slot(key.as_bytes()), expected % SLOTS, "{key}");
        }
        assert_eq!(slot(b"foo{}{bar}"), CRC16.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
        assert_eq!(slot(b"{open"), CRC16.checksum(b"{open") % SLOTS);
    }

    #[test]
    fn finds_a_hash_tag_for_every_slot() {
        for expected_slot in [0, 1, 5460, 10_922, SLOTS - 1] {
            let tag = hash_tag_for(expected_slot);
            assert_eq!(slot(format!("articles:{{{tag}}}").as_bytes()), expected_slot);
        }
    }

    #[test]
    fn parses_ranges_in_order_with_their_servers() {
        let wire = "*2\r\n*4\r\n:5461\r\n:16383\r\n*3\r\n$0\r\n\r\n:7392\r\n$1\r\nb\r\n*3\r\n$1\r\n?\r\n:1\r\n$1\r\nx\r\n*4\r\n:0\r\n:5460\r\n*4\r\n$9\r\n127.0.0.1\r\n:7391\r\n$1\r\na\r\n*0\r\n*4\r\n$9\r\n127.0.0.1\r\n:7394\r\n$1\r\nc\r\n*0\r\n";
        let host = || "127.0.0.1".to_owned();
        assert_eq!(
            parse_ranges(reply::recorded(wire)).unwrap(),
            [
                SlotRange { first: 0, last: 5460, servers: vec![(host(), 7391), (host(), 7394)] },
                SlotRange { first: 5461, last: 16_383, servers: vec![(String::new(), 7392)] },
            ]
        );
        for wrong in
            ["*1\r\n*1\r\n:1\r\n", "*1\r\n*2\r\n:1\r\n:16384\r\n", "*1\r\n*2\r\n:2\r\n:1\r\n", "+x\r\n"]
        {
            assert_eq!(parse_ranges(reply::recorded(wrong)).unwrap_err().code, "redis-reply", "{wrong:?}");
        }
    }

    #[test]
    fn detects_migrating_slots_in_brackets() {
        let line = |flags, slots| format!("ab 127.0.0.1:1@2 {flags} - 0 1 1 connected 0-5460{slots}\n");
        let moving = |text: String| is_migrating(Value::BulkString(text.into_bytes())).unwrap();
        assert!(!moving(line("master", "") + &line("myself,master", "")));
        assert!(moving(line("master", "") + &line("myself,master", " [93-<-cd]")));
        assert!(!moving(line("master", " [93->-cd]") + &line("myself,master", "")));
    }

    #[test]
    fn distinguishes_redirections_from_other_replies() {
        let read = |wire| Redirection::parse(&reply::recorded(wire));
        let to = |is_ask, host: &str, port| Some(Redirection { is_ask, host: host.to_owned(), port });
        assert_eq!(read("-MOVED 14503 127.0.0.1:7393\r\n"), to(false, "127.0.0.1", 7393));
        assert_eq!(read("-ASK 1 ::1:7393\r\n"), to(true, "::1", 7393));
        assert_eq!(read("-MOVED 1 :7393\r\n"), to(false, "", 7393));
        for other in ["-MOVED\r\n", "-MOVED 1 x\r\n", "-TRYAGAIN later\r\n", "+MOVED 1 a:1\r\n"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
