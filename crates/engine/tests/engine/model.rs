//! Random histories compared with a map.

use std::collections::BTreeMap;

use engine::{Expected, Filter, Metric, Op, Query, WriteError};
use proptest::prelude::*;

use crate::test_engine::*;

pub(crate) const KEYS: u64 = 14;

#[derive(Clone, Debug)]
enum ModelAction {
    Put { key: u64, vector: bool, category: u8, year: Option<i32>, ttl_ms: Option<u64> },
    Delete { key: u64, guarded: bool },
    Search { near: u64, k: usize, filter: u8 },
    AdvanceClock { ms: u64 },
    PurgeExpired,
    Settle,
    Reopen { with_snapshots: bool },
    Crash,
}

fn actions() -> impl Strategy<Value = ModelAction> {
    prop_oneof![
        12 => (0..KEYS, prop::bool::weighted(0.9), 0..4u8, prop::option::of(0..5), prop::option::weighted(0.3, 1..50u64))
            .prop_map(|(key, vector, category, year, ttl_ms)| ModelAction::Put { key, vector, category, year, ttl_ms }),
        5 => (0..KEYS, any::<bool>()).prop_map(|(key, guarded)| ModelAction::Delete { key, guarded }),
        8 => (0..1000u64, 1..20usize, 0..8u8).prop_map(|(near, k, filter)| ModelAction::Search { near, k, filter }),
        2 => (1..30u64).prop_map(|ms| ModelAction::AdvanceClock { ms }),
        1 => Just(ModelAction::PurgeExpired),
        1 => Just(ModelAction::Settle),
        1 => any::<bool>().prop_map(|with_snapshots| ModelAction::Reopen { with_snapshots }),
        1 => Just(ModelAction::Crash),
    ]
}

/// A document in the map.
#[derive(Clone, Debug)]
pub(crate) struct ModelDocument {
    /// Number of writes in the model when the document was first written.
    pub(crate) created: u64,
    pub(crate) seq: u64,
    pub(crate) vector: Option<Vec<f32>>,
    pub(crate) category: u8,
    pub(crate) year: Option<i32>,
    pub(crate) expires_at_ms: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) documents: BTreeMap<u64, ModelDocument>,
    pub(crate) writes: u64,
    pub(crate) now_ms: u64,
}

pub(crate) fn name(key: u64) -> String {
    format!("doc:{key:02}")
}

pub(crate) const FILTERS: [&str; 8] = [
    "*",
    "@category:{c1}",
    "-@category:{c1|c2}",
    "@year:[1 3]",
    "-@year:[-inf +inf]",
    "@category:{c0|c3} @year:[(0 +inf]",
    "@category:{c2} | @year:[4]",
    "@category:{none}",
];

pub(crate) fn matches_filter(filter: u8, document: &ModelDocument) -> bool {
    let category = document.category;
    let year = document.year;
    match filter {
        0 => true,
        1 => category == 1,
        2 => category != 1 && category != 2,
        3 => year.is_some_and(|year| (1..=3).contains(&year)),
        4 => year.is_none(),
        5 => (category == 0 || category == 3) && year.is_some_and(|year| year > 0),
        6 => category == 2 || year == Some(4),
        _ => false,
    }
}

impl Model {
    pub(crate) fn live(&mut self) -> &BTreeMap<u64, ModelDocument> {
        let now_ms = self.now_ms;
        self.documents.retain(|_, document| document.expires_at_ms.is_none_or(|end| end > now_ms));
        &self.documents
    }
}

fn apply(test: &mut TestEngine, model: &mut Model, action: &ModelAction) -> Result<(), TestCaseError> {
    match *action {
        ModelAction::Put { key, vector, category, year, ttl_ms } => {
            model.writes += 1;
            let vector = vector.then(|| self::vector(model.writes));
            let mut values = vec![field("category", format!("C{category} , all").as_bytes())];
            values.extend(year.map(|year| field("year", year.to_string().as_bytes())));
            values.extend(vector.as_ref().map(|vector| field("v", &blob(vector))));
            let expires_at_ms = ttl_ms.map(|ttl_ms| model.now_ms + ttl_ms);
            let old = model.live().get(&key).cloned();
            let written = test.write(Op::Put {
                key: name(key).into(),
                fields: values,
                expires_at_ms,
                vectors: Vec::new(),
                expected: old.as_ref().map_or(Expected::Absent, |old| Expected::Seq(old.seq)),
            });
            let written = written.unwrap();
            prop_assert_eq!(written.existed, old.is_some());
            let created = old.map_or(model.writes, |old| old.created);
            let document = ModelDocument { created, seq: written.seq, vector, category, year, expires_at_ms };
            model.documents.insert(key, document);
        }
        ModelAction::Delete { key, guarded } => {
            let old = model.live().get(&key).cloned();
            let expected = if guarded {
                Expected::Seq(old.as_ref().map_or(1 << 40, |old| old.seq))
            } else {
                Expected::Any
            };
            let result = test.write(Op::Delete { key: name(key).into(), expected });
            match (result, old) {
                (Ok(written), Some(_)) => prop_assert!(written.existed && written.seq > 0),
                (Ok(written), None) => prop_assert!(!guarded && !written.existed && written.seq == 0),
                (Err(WriteError::Conflict { found: None, .. }), None) => prop_assert!(guarded),
                (other, old) => prop_assert!(false, "{:?} for {:?}", other, old),
            }
            model.documents.remove(&key);
        }
        ModelAction::Search { near, k, filter } => search(test, model, near, k, filter)?,
        ModelAction::AdvanceClock { ms } => {
            test.clock.advance(ms);
            model.now_ms += ms;
        }
        ModelAction::PurgeExpired => {
            test.engine().purge_expired().unwrap();
            let live = model.live().len() as u64;
            prop_assert_eq!(test.engine().stats().unwrap().documents, live);
        }
        ModelAction::Settle => test.settle(),
        ModelAction::Reopen { with_snapshots } => {
            test.close();
            if !with_snapshots {
                std::fs::remove_dir_all(test.options.data_dir.join("snapshots")).unwrap();
            }
            test.open();
            prop_assert_eq!(test.engine().warnings(), Vec::<String>::new());
        }
        ModelAction::Crash => {
            test.crash();
            prop_assert_eq!(test.engine().warnings(), Vec::<String>::new());
        }
    }
    Ok(())
}

fn search(
    test: &TestEngine,
    model: &mut Model,
    near: u64,
    k: usize,
    filter: u8,
) -> Result<(), TestCaseError> {
    let target = vector(near);
    let mut expected: Vec<(f64, u64)> = model
        .live()
        .iter()
        .filter(|(_, document)| matches_filter(filter, document))
        .filter_map(|(key, document)| {
            let vector = document.vector.as_ref()?;
            let difference = target.iter().zip(vector).map(|(a, b)| f64::from(*a) - f64::from(*b));
            Some((difference.map(|difference| difference * difference).sum(), *key))
        })
        .collect();
    expected.sort_by(|a, b| a.0.total_cmp(&b.0));
    let expected: Vec<String> = expected.into_iter().take(k).map(|(_, key)| name(key)).collect();
    let parsed: Filter = test.filter("docs", FILTERS[usize::from(filter)]);
    let query = Query { filter: Some(&parsed), ..query("docs", &target, k) };
    prop_assert_eq!(test.keys(&query.clone().exact(true)), expected.clone());
    // With so few documents, all of them are candidates, so a graph search finds the same as an exact one.
    prop_assert_eq!(test.keys(&query), expected);
    Ok(())
}

/// Compares the engine with the model.
fn compare_all(test: &TestEngine, model: &mut Model) -> Result<(), TestCaseError> {
    let mut live: Vec<(u64, ModelDocument)> =
        model.live().iter().map(|(key, document)| (*key, document.clone())).collect();
    live.sort_by_key(|(_, document)| document.created);
    let names = |passing: &dyn Fn(&ModelDocument) -> bool| -> Vec<String> {
        live.iter().filter(|(_, document)| passing(document)).map(|(key, _)| name(*key)).collect()
    };
    prop_assert_eq!(test.scroll("docs", None), names(&|_| true));
    for (number, text) in FILTERS.iter().enumerate() {
        let filter = test.filter("docs", text);
        let expected = names(&|document| matches_filter(number as u8, document));
        prop_assert_eq!(test.engine().count("docs", Some(&filter)).unwrap(), expected.len() as u64);
        prop_assert_eq!(test.scroll("docs", Some(&filter)), expected);
    }
    for key in 0..KEYS {
        let expected = model.documents.get(&key);
        let found = test.engine().get(name(key).as_bytes()).unwrap();
        prop_assert_eq!(found.as_ref().map(|found| found.seq), expected.map(|expected| expected.seq));
        let expires_at_ms = expected.and_then(|expected| expected.expires_at_ms);
        prop_assert_eq!(found.and_then(|found| found.expires_at_ms), expires_at_ms);
    }
    for number in 0..4 {
        search(test, model, 2000 + number, 20, 0)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_agree_with_a_map(history in prop::collection::vec(actions(), 1..40)) {
        let mut test = TestEngine::new();
        test.engine().create_collection("docs", schema("doc:", hnsw(), Metric::L2)).unwrap();
        let mut model = Model { now_ms: BEGIN_MS, ..Model::default() };
        for action in &history {
            apply(&mut test, &mut model, action)?;
        }
        compare_all(&test, &mut model)?;
        test.crash();
        compare_all(&test, &mut model)?;
    }
}
