//! Long random histories compared with a map, on a machine that loses power: collections are created, rebuilt and
//! dropped, the clock jumps, documents expire.
//!
//! `PROPTEST_CASES=100000 cargo test --release -p engine --test engine histories` is the long run. The seed is fixed;
//! a failed case is saved, shrunk, in `histories.regressions` and runs first.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use engine::{Algorithm, DropMode, Engine, Expected, Metric, Op, Options, Query, Schema};
use proptest::{
    prelude::*,
    test_runner::{FileFailurePersistence, RngSeed, TestRunner},
};

use crate::{
    crash_storage::SimulatedMachine,
    disks::Fault,
    faults::options,
    model::{FILTERS, KEYS, Model, ModelDocument, matches_filter, name},
    test_engine::{BEGIN_MS, FakeClock, QueryExt as _, blob, field, hnsw, keys, query, schema, text, vector},
};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
const EXPIRIES_MS: [u64; 5] = [1, 40, 12 * HOUR_MS, 36 * HOUR_MS, 20 * YEAR_MS];
const SEED: u64 = 4141;
/// Share of the graph searches that may miss a document, because the graph changes constantly.
const MISSED_MAX: f64 = 0.001;
/// Tolerance between two ways of computing a distance.
const DISTANCE_TOLERANCE: f64 = 1e-5;

#[derive(Clone, Debug)]
enum Action {
    Put(Put),
    Patch {
        key: u64,
        year: i32,
    },
    Delete {
        key: u64,
    },
    Search {
        near: u64,
        k: usize,
        filter: usize,
    },
    ClockForward {
        ms: u64,
    },
    /// Sets the clock back by a day and purges the documents that have expired by then.
    ClockBack,
    PurgeExpired,
    Create {
        configuration: usize,
    },
    Rebuild {
        configuration: usize,
    },
    Switch,
    Drop {
        documents: bool,
    },
    Reopen {
        with_snapshots: bool,
    },
    /// Loses power now, or after this many disk calls of a write.
    Crash {
        seed: u64,
        during: Option<(Put, u64)>,
    },
}

#[derive(Clone, Debug)]
struct Put {
    key: u64,
    has_vector: bool,
    category: u8,
    year: Option<i32>,
    expiry: Option<usize>,
}

fn put() -> impl Strategy<Value = Put> {
    let expiry = prop::option::weighted(0.3, 0..EXPIRIES_MS.len());
    let year = prop::option::of(0..5);
    (0..KEYS, prop::bool::weighted(0.9), 0..4u8, year, expiry)
        .prop_map(|(key, has_vector, category, year, expiry)| Put { key, has_vector, category, year, expiry })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        40 => put().prop_map(Action::Put),
        8 => (0..KEYS, 0..5).prop_map(|(key, year)| Action::Patch { key, year }),
        14 => (0..KEYS).prop_map(|key| Action::Delete { key }),
        24 => (0..1000u64, 1..20usize, 0..FILTERS.len())
            .prop_map(|(near, k, filter)| Action::Search { near, k, filter }),
        4 => prop::sample::select(vec![1, 30, DAY_MS, 10 * YEAR_MS]).prop_map(|ms| Action::ClockForward { ms }),
        2 => Just(Action::ClockBack),
        2 => Just(Action::PurgeExpired),
        2 => (0..4usize).prop_map(|configuration| Action::Create { configuration }),
        2 => (0..4usize).prop_map(|configuration| Action::Rebuild { configuration }),
        2 => Just(Action::Switch),
        1 => prop::bool::weighted(0.2).prop_map(|documents| Action::Drop { documents }),
        1 => any::<bool>().prop_map(|with_snapshots| Action::Reopen { with_snapshots }),
        2 => (any::<u64>(), prop::option::of((put(), 1..40u64)))
            .prop_map(|(seed, during)| Action::Crash { seed, during }),
    ]
}

const CONFIGURATIONS: [(fn() -> Algorithm, Metric); 4] = [
    (hnsw, Metric::L2),
    (|| Algorithm::Flat, Metric::L2),
    (hnsw, Metric::Cosine),
    (|| Algorithm::Flat, Metric::Cosine),
];

fn schema_of(configuration: usize) -> Schema {
    let (algorithm, metric) = CONFIGURATIONS[configuration];
    schema("doc:", algorithm(), metric)
}

fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum = |term: fn(f64, f64) -> f64, a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum()
    };
    let dot = |a, b| sum(|a, b| a * b, a, b);
    match metric {
        Metric::L2 => sum(|a, b| (a - b) * (a - b), a, b),
        Metric::Ip => 1.0 - dot(a, b),
        Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
    }
}

/// A history in progress, and its expected state.
struct HistoryRunner {
    machine: SimulatedMachine,
    clock: Arc<FakeClock>,
    verify_bytes_max: u64,
    engine: Option<Engine>,
    model: Model,
    /// Configurations of the active collection and of the one being built.
    active: Option<usize>,
    rebuilding: Option<usize>,
    /// Graph searches, and those that did not find all of the nearest documents.
    searches: u64,
    missed: u64,
}

impl HistoryRunner {
    fn begin(verify_bytes_max: u64) -> HistoryRunner {
        let mut runner = HistoryRunner {
            machine: SimulatedMachine::default(),
            clock: Arc::new(FakeClock::at(BEGIN_MS)),
            verify_bytes_max,
            engine: None,
            model: Model { now_ms: BEGIN_MS, ..Model::default() },
            active: None,
            rebuilding: None,
            searches: 0,
            missed: 0,
        };
        runner.open();
        runner
    }

    fn open(&mut self) {
        let HistoryRunner { clock, verify_bytes_max, .. } = self;
        let options = Options { clock: clock.clone(), verify_bytes_max: *verify_bytes_max, ..options() };
        let storage = Arc::new(self.machine.storage.clone());
        let opened = Engine::open_on(self.machine.disk.clone(), storage, options);
        self.engine = Some(opened.unwrap_or_else(|error| panic!("does not open without repair: {error}")));
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is open")
    }

    /// Writes a document. Also returns the document that the key then has, unless the write is rejected.
    fn put(&mut self, put: &Put) -> (Result<(), TestCaseError>, ModelDocument) {
        self.model.writes += 1;
        let vector = put.has_vector.then(|| vector(self.model.writes));
        let mut fields = vec![field("category", format!("C{} , all", put.category).as_bytes())];
        fields.extend(put.year.map(|year| field("year", year.to_string().as_bytes())));
        fields.extend(vector.as_ref().map(|vector| field("v", &blob(vector))));
        let expires_at_ms = put.expiry.map(|expiry| self.model.now_ms + EXPIRIES_MS[expiry]);
        let old = self.model.live().get(&put.key).cloned();
        let written = self.engine().write(vec![Op::Put {
            key: name(put.key).into(),
            fields,
            expires_at_ms,
            vectors: Vec::new(),
            expected: old.as_ref().map_or(Expected::Absent, |old| Expected::Seq(old.seq)),
        }]);
        let created = old.as_ref().map_or(self.model.writes, |old| old.created);
        let mut document =
            ModelDocument { created, seq: 0, vector, category: put.category, year: put.year, expires_at_ms };
        let outcome = match &written[0] {
            Ok(written) => {
                document.seq = written.seq;
                self.model.documents.insert(put.key, document.clone());
                if written.existed == old.is_some() {
                    Ok(())
                } else {
                    Err(TestCaseError::fail(format!("{written:?}, and there was {old:?}")))
                }
            }
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        };
        (outcome, document)
    }

    fn apply(&mut self, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::Put(put) => self.put(put).0?,
            Action::Patch { key, year } => {
                let found = self.engine().get(name(*key).as_bytes()).unwrap();
                let old = self.model.live().get(key).cloned();
                prop_assert_eq!(found.is_some(), old.is_some());
                let (Some(found), Some(old)) = (found, old) else { return Ok(()) };
                let mut fields = found.fields;
                fields.retain(|field| *field.name != *b"year");
                fields.push(field("year", year.to_string().as_bytes()));
                let written = self.engine().write(vec![Op::Put {
                    key: found.key.into(),
                    fields,
                    expires_at_ms: found.expires_at_ms,
                    vectors: Vec::new(),
                    expected: Expected::Seq(found.seq),
                }]);
                let seq = written[0].as_ref().unwrap().seq;
                self.model.documents.insert(*key, ModelDocument { seq, year: Some(*year), ..old });
            }
            Action::Delete { key } => {
                let existed = self.model.live().contains_key(key);
                let delete = Op::Delete { key: name(*key).into(), expected: Expected::Any };
                let written = self.engine().write(vec![delete]);
                prop_assert_eq!(written[0].as_ref().unwrap().existed, existed);
                self.model.documents.remove(key);
            }
            Action::Search { near, k, filter } => self.search(*near, *k, *filter)?,
            Action::ClockForward { ms } => {
                self.clock.advance(*ms);
                self.model.now_ms += ms;
            }
            Action::ClockBack => {
                // The engine has seen this time, so it applies until everything that expired before is purged.
                self.engine().now_ms();
                self.model.live();
                self.model.now_ms -= DAY_MS;
                self.clock.set(self.model.now_ms);
                self.compare_all()?;
                self.purge_expired()?;
            }
            Action::PurgeExpired => self.purge_expired()?,
            Action::Create { configuration } => {
                let created = self.engine().create_collection("docs", schema_of(*configuration));
                let is_allowed = self.active.is_none_or(|active| active == *configuration);
                prop_assert_eq!(created.is_ok(), is_allowed, "{:?}", created);
                self.active = Some(self.active.unwrap_or(*configuration));
            }
            Action::Rebuild { configuration } => {
                let started = self.engine().rebuild_collection("docs", schema_of(*configuration));
                let is_allowed = self.active.is_some()
                    && self.rebuilding.is_none_or(|rebuilding| rebuilding == *configuration);
                prop_assert_eq!(started.is_ok(), is_allowed, "{:?}", started);
                if is_allowed {
                    self.rebuilding = Some(*configuration);
                }
            }
            Action::Switch => {
                let switched = self.engine().switch_collection("docs");
                prop_assert_eq!(switched.is_ok(), self.rebuilding.is_some(), "{:?}", switched);
                self.active = self.rebuilding.take().or(self.active);
            }
            Action::Drop { documents } => {
                let mode = if *documents { DropMode::DeleteDocuments } else { DropMode::KeepDocuments };
                let dropped = self.engine().drop_collection("docs", mode);
                prop_assert_eq!(dropped.is_ok(), self.active.is_some(), "{:?}", dropped);
                if *documents && self.active.is_some() {
                    self.model.documents.clear();
                }
                (self.active, self.rebuilding) = (None, None);
            }
            Action::Reopen { with_snapshots } => {
                let engine = self.engine.take().expect("the engine is open");
                engine.close();
                drop(engine);
                if !with_snapshots {
                    self.machine = SimulatedMachine::with_files(self.machine.disk.bytes(), &BTreeMap::new());
                }
                self.open();
                prop_assert_eq!(self.engine().warnings(), Vec::<String>::new());
                self.compare_all()?;
            }
            Action::Crash { seed, during } => self.crash(*seed, during.as_ref())?,
        }
        Ok(())
    }

    fn purge_expired(&mut self) -> Result<(), TestCaseError> {
        self.engine().purge_expired().unwrap();
        let live = self.model.live().len() as u64;
        prop_assert_eq!(self.engine().stats().unwrap().documents, live);
        Ok(())
    }

    fn crash(&mut self, seed: u64, during: Option<&(Put, u64)>) -> Result<(), TestCaseError> {
        let mut uncertain = None;
        if let Some((put, calls)) = during {
            self.machine.disk.fail(Fault::From { call: self.machine.disk.calls() + calls });
            let before = self.model.documents.clone();
            let (outcome, document) = self.put(put);
            if outcome.is_err() {
                self.model.documents = before;
                uncertain = Some((put.key, document));
            }
        }
        self.machine = self.machine.after_power_loss(seed);
        self.engine = None;
        self.open();
        if let Some((key, document)) = uncertain
            && let Some(found) = self.engine().get(name(key).as_bytes()).unwrap()
            && self.model.live().get(&key).is_none_or(|old| old.seq != found.seq)
        {
            // Durable, but not answered.
            self.model.documents.insert(key, ModelDocument { seq: found.seq, ..document });
        }
        self.compare_all()
    }

    fn search(&mut self, near: u64, k: usize, filter: usize) -> Result<(), TestCaseError> {
        let target = vector(near);
        let Some(configuration) = self.active else {
            prop_assert!(self.engine().search(&query("docs", &target, k)).is_err());
            return Ok(());
        };
        let metric = CONFIGURATIONS[configuration].1;
        let distances: BTreeMap<String, f64> = self
            .model
            .live()
            .iter()
            .filter(|(_, document)| matches_filter(filter as u8, document))
            .filter_map(|(key, document)| {
                Some((name(*key), distance(metric, &target, document.vector.as_ref()?)))
            })
            .collect();
        let mut nearest: Vec<f64> = distances.values().copied().collect();
        nearest.sort_by(f64::total_cmp);
        nearest.truncate(k);
        let parsed = self.engine().parse_filter("docs", FILTERS[filter]).unwrap();
        for exact in [true, false] {
            let request = Query { filter: Some(&parsed), ..query("docs", &target, k).exact(exact) };
            let mut found = keys(&self.engine().search(&request).unwrap());
            // A document that must not be found has the distance NaN.
            let found_distances: Vec<f64> =
                found.iter().map(|key| distances.get(key).copied().unwrap_or(f64::NAN)).collect();
            let is_near = |(found, expected): (&f64, &f64)| (found - expected).abs() < DISTANCE_TOLERANCE;
            let is_ordered = !found_distances.iter().any(|distance| distance.is_nan())
                && found_distances.windows(2).all(|pair| pair[0] < pair[1] + DISTANCE_TOLERANCE);
            let missed = found_distances.iter().zip(&nearest).filter(|pair| !is_near(*pair)).count();
            prop_assert!(
                found_distances.len() == nearest.len() && (missed == 0 || !exact) && is_ordered,
                "{}, exact {}: {:?} at {:?}, not at {:?}",
                FILTERS[filter],
                exact,
                found,
                found_distances,
                nearest
            );
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), nearest.len(), "a document is found twice");
            if !exact {
                self.searches += 1;
                self.missed += u64::from(missed > 0);
            }
        }
        Ok(())
    }

    /// Compares the engine with the model.
    fn compare_all(&mut self) -> Result<(), TestCaseError> {
        let live = self.model.live().clone();
        for key in 0..KEYS {
            let found = self.engine().get(name(key).as_bytes()).unwrap();
            let expected = live.get(&key);
            prop_assert_eq!(found.as_ref().map(|found| found.seq), expected.map(|expected| expected.seq));
            let expires_at_ms = found.as_ref().and_then(|found| found.expires_at_ms);
            prop_assert_eq!(expires_at_ms, expected.and_then(|expected| expected.expires_at_ms));
            let found_vector = found.as_ref().and_then(|found| found.field(b"v"));
            let vector = expected.and_then(|expected| expected.vector.as_deref()).map(blob);
            prop_assert_eq!(found_vector, vector.as_deref());
        }
        if self.active.is_none() {
            prop_assert!(self.engine().collections().is_empty());
            return Ok(());
        }
        let mut in_order: Vec<(&u64, &ModelDocument)> = live.iter().collect();
        in_order.sort_by_key(|(_, document)| document.created);
        for (number, filter) in FILTERS.iter().enumerate() {
            let passing = in_order.iter().filter(|(_, document)| matches_filter(number as u8, document));
            let expected: Vec<String> = passing.map(|(key, _)| name(**key)).collect();
            let filter = self.engine().parse_filter("docs", filter).unwrap();
            prop_assert_eq!(self.engine().count("docs", Some(&filter)).unwrap(), expected.len() as u64);
            let page = self.engine().scroll("docs", Some(&filter), None, 100).unwrap();
            let found: Vec<String> = page.documents.iter().map(|document| text(&document.key)).collect();
            prop_assert_eq!(found, expected);
        }
        let info = self.engine().collection("docs").unwrap();
        prop_assert_eq!(info.rebuilding.is_some(), self.rebuilding.is_some());
        self.search(2000, 20, 0)
    }
}

/// One case in five is long.
fn history() -> impl Strategy<Value = Vec<Action>> {
    prop_oneof![
        4 => prop::collection::vec(action(), 1..100),
        1 => prop::collection::vec(action(), 100..=1000),
    ]
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 60 };
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(SEED),
        source_file: Some(file!()),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 5000,
        ..default
    }
}

#[test]
fn long_histories_agree_with_a_map() {
    let config = config();
    let cases = config.cases;
    let (searches, missed, steps) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let histories = (history(), prop::bool::weighted(0.2));
    let outcome = TestRunner::new(config).run(&histories, |(history, verified)| {
        let mut runner = HistoryRunner::begin(if verified { u64::MAX } else { 0 });
        for action in &history {
            runner.apply(action)?;
        }
        runner.compare_all()?;
        runner.apply(&Action::Crash { seed: history.len() as u64, during: None })?;
        searches.set(searches.get() + runner.searches);
        missed.set(missed.get() + runner.missed);
        steps.set(steps.get() + history.len());
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let (searches, missed, steps) = (searches.get(), missed.get(), steps.get());
    println!(
        "{cases} histories of {steps} steps from seed {SEED}; {missed} of {searches} graph searches missed one"
    );
    assert!(
        missed as f64 <= searches as f64 * MISSED_MAX,
        "{missed} of {searches} graph searches missed one"
    );
}
