//! The acknowledged and pending writes of one writer, per document.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::random::Random;

/// The version of a document, or `None` if it does not exist.
pub(crate) type State = Option<u64>;

pub(crate) const DIM: usize = 8;

/// The expected documents of one writer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Prefix of all ids of this writer.
    pub(crate) writer: &'static str,
    acknowledged: BTreeMap<u64, State>,
    /// Requested and not acknowledged.
    pending: BTreeMap<u64, State>,
    versions: u64,
}

impl Ledger {
    pub(crate) fn new(writer: &'static str) -> Ledger {
        Ledger { writer, ..Ledger::default() }
    }

    /// A version that no document has had.
    pub(crate) fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// A random document without a pending write among the first `count`; `None` if none is found.
    pub(crate) fn random_without_pending_write(&self, count: u64, random: &mut Random) -> Option<u64> {
        (0..100).map(|_| random.below(count)).find(|number| !self.pending.contains_key(number))
    }

    pub(crate) fn exists(&self, number: u64) -> bool {
        self.acknowledged.get(&number).copied().flatten().is_some()
    }

    pub(crate) fn begin(&mut self, number: u64, state: State) {
        let previous = self.pending.insert(number, state);
        assert_eq!(previous, None, "a document has at most one pending write");
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        let state = self.pending.remove(&number).expect("an acknowledged write must be pending");
        self.acknowledged.insert(number, state);
    }

    /// Asserts that every acknowledged write is present and every pending one is applied entirely or not at
    /// all, then records the stored versions as acknowledged.
    pub(crate) fn reconcile(&mut self, found: &BTreeMap<u64, u64>) {
        for number in found.keys() {
            let is_known_write = self.acknowledged.contains_key(number) || self.pending.contains_key(number);
            assert!(is_known_write, "{}-{number} was never written", self.writer);
        }
        let numbers: Vec<u64> = self.acknowledged.keys().chain(self.pending.keys()).copied().collect();
        for number in numbers {
            let stored = found.get(&number).copied();
            let acknowledged = self.acknowledged.get(&number).copied().flatten();
            let pending = self.pending.remove(&number);
            assert!(
                stored == acknowledged || Some(stored) == pending,
                "{}-{number}: version {acknowledged:?} was acknowledged (None: deleted or never written), \
                 {pending:?} was pending, {stored:?} is stored",
                self.writer
            );
            self.acknowledged.insert(number, stored);
        }
    }

    /// A random sample of existing documents.
    pub(crate) fn sample(&self, count: usize, random: &mut Random) -> Vec<(u64, u64)> {
        let existing: Vec<(u64, u64)> =
            self.acknowledged.iter().filter_map(|(number, state)| Some((*number, (*state)?))).collect();
        let draw = |_| existing[random.below(existing.len() as u64) as usize];
        if existing.is_empty() { Vec::new() } else { (0..count).map(draw).collect() }
    }

    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.writer)
    }

    /// A version of a document; every field is a function of its number and version.
    pub(crate) fn document(&self, number: u64, version: u64) -> Value {
        document(&self.id(number), number, version)
    }
}

pub(crate) fn document(id: &str, number: u64, version: u64) -> Value {
    json!({
        "id": id,
        "text": format!("document {id} in version {version}. ").repeat(1 + (number % 30) as usize),
        "version": version,
        "parity": if version.is_multiple_of(2) { "even" } else { "odd" },
        "place": vector(id, version),
    })
}

/// A vector that differs per document and version.
pub(crate) fn vector(id: &str, version: u64) -> [f32; DIM] {
    let seed = id.bytes().fold(version, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut random = Random::new(seed);
    std::array::from_fn(|_| random.below(20_001) as f32 / 1000.0 - 10.0)
}
