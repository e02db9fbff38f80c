//! What a node of a cluster says of the nodes.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::redis_stack::Reply;

/// A node, as one of them sees it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) is_myself: bool,
    pub(super) is_primary: bool,
    /// A replica's primary.
    pub(super) primary: Option<String>,
    /// Taken for failed, by all or by this one.
    pub(super) failed: bool,
    pub(super) in_handshake: bool,
    pub(super) linked: bool,
    /// Of its last change of slots: of two that claim a slot, the higher one has it.
    pub(super) epoch: u64,
    pub(super) slots: Vec<RangeInclusive<u16>>,
}

impl Node {
    pub(super) fn slots_count(&self) -> usize {
        self.slots.iter().map(ExactSizeIterator::len).sum()
    }
}

/// The reply to CLUSTER NODES:
/// `<id> <ip:port@cport> <flags> <primary> <ping> <pong> <epoch> <link> <slot> ...`.
pub(super) fn parse(reply: &Reply) -> Vec<Node> {
    text(reply).lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Node {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, address, flags, primary, _, _, epoch, link, slots @ ..] = words.as_slice() else {
        panic!("a line of CLUSTER NODES: {line}");
    };
    let port = address.split(['@', ',']).next().and_then(|host_port| host_port.rsplit(':').next());
    let has = |flag: &str| flags.split(',').any(|each| each == flag);
    // A slot in migration is listed again, in brackets.
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

/// The lines `name:value` of a reply such as CLUSTER INFO's.
pub(super) fn pairs(reply: &Reply) -> BTreeMap<String, String> {
    let lines = text(reply);
    let pairs = lines.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Text(text) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("a text was expected: {other:?}"),
    }
}
