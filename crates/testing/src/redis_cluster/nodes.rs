//! Parsing of CLUSTER NODES.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::redis_stack::Reply;

/// A node, as another node or itself describes it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) is_myself: bool,
    pub(crate) is_primary: bool,
    /// The id of a replica's primary.
    pub(crate) primary: Option<String>,
    /// Marked as failed by all nodes or by the one that replied.
    pub(crate) failed: bool,
    pub(crate) in_handshake: bool,
    pub(crate) linked: bool,
    /// Config epoch: of two nodes that claim a slot, the one with the higher epoch owns it.
    pub(crate) epoch: u64,
    pub(crate) slots: Vec<RangeInclusive<u16>>,
}

impl Node {
    pub(crate) fn slots_count(&self) -> usize {
        self.slots.iter().map(ExactSizeIterator::len).sum()
    }
}

/// Parses the reply to CLUSTER NODES: `<id> <ip:port@cport> <flags> <primary> <ping> <pong> <epoch>
/// <link> <slot> ...`.
pub(crate) fn parse(reply: &Reply) -> Vec<Node> {
    text(reply).lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Node {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, address, flags, primary, _, _, epoch, link, slots @ ..] = words.as_slice() else {
        panic!("a line of CLUSTER NODES: {line}");
    };
    let port = address.split(['@', ',']).next().and_then(|host_port| host_port.rsplit(':').next());
    let has = |flag: &str| flags.split(',').any(|found| found == flag);
    // A migrating slot is listed again in brackets.
    let slots = slots.iter().filter(|slot| !slot.starts_with('[')).map(|slot| {
        let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
        first.parse().unwrap()..=last.parse().unwrap()
    });
    Node {
        id: (*id).to_owned(),
        port: port.unwrap().parse().unwrap(),
        is_myself: has("myself"),
        is_primary: has("master"),
        primary: (*primary != "-").then(|| (*primary).to_owned()),
        failed: has("fail") || has("fail?"),
        in_handshake: has("handshake"),
        linked: *link == "connected",
        epoch: epoch.parse().unwrap(),
        slots: slots.collect(),
    }
}

/// The `name:value` lines of a reply such as that to CLUSTER INFO.
pub(crate) fn pairs(reply: &Reply) -> BTreeMap<String, String> {
    let lines = text(reply);
    let pairs = lines.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Text(text) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("expected text: {other:?}"),
    }
}
