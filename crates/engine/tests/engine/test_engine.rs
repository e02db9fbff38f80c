//! An engine in a temporary directory with a manually advanced clock, and helpers.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use engine::{
    Algorithm, Clock, ComputedVector, Cpu, Durability, Embedding, Engine, Expected, Field, FieldKind,
    FieldSchema, Filter, Leg, Metric, Op, Options, Order, Page, Quantization, Query, Schema, SearchResult,
    TextToEmbed, VectorLeg, VectorSchema, VectorType, WriteError, WriteOutcome,
};
use tempfile::TempDir;

/// A time in 2033, at which every test begins.
pub(crate) const BEGIN_MS: u64 = 2_000_000_000_000;
pub(crate) const DIM: usize = 8;

#[derive(Debug)]
pub(crate) struct FakeClock(AtomicU64);

impl FakeClock {
    pub(crate) fn at(ms: u64) -> FakeClock {
        FakeClock(AtomicU64::new(ms))
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct TestEngine {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) options: Options,
    engine: Option<Engine>,
}

impl TestEngine {
    pub(crate) fn new() -> TestEngine {
        TestEngine::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> TestEngine {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(BEGIN_MS));
        let mut options = Options {
            data_dir: dir.path().to_owned(),
            cpu: Cpu::detect(),
            clock: clock.clone(),
            cache_bytes: 8 << 20,
            disk_reserve_bytes: 0,
            memory_max_bytes: 0,
            verify_bytes_max: u64::MAX,
            durability: Durability::Always,
            tail_max: 10_000,
            index_threads: 1,
            lower_priority: || {},
            on_read_only: |_| {},
        };
        change(&mut options);
        let engine = Engine::open(options.clone()).unwrap();
        TestEngine { dir, clock, options, engine: Some(engine) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is open")
    }

    /// Closes the engine and keeps the directory.
    pub(crate) fn close(&mut self) {
        self.engine.take().expect("the engine is open").close();
    }

    pub(crate) fn open(&mut self) {
        self.engine = Some(Engine::open(self.options.clone()).unwrap());
    }

    pub(crate) fn reopen(&mut self) {
        self.close();
        self.open();
    }

    /// Continues with the files that remain if the process is killed now.
    pub(crate) fn crash(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        drop(self.engine.take());
        self.options.data_dir = dir.path().to_owned();
        self.dir = dir;
        self.open();
    }

    pub(crate) fn put(&self, key: &str, fields: &[(&str, &[u8])]) -> WriteOutcome {
        self.write(put(key, fields)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    pub(crate) fn delete(&self, key: &str) -> WriteOutcome {
        self.write(Op::Delete { key: key.into(), expected: Expected::Any }).unwrap()
    }

    pub(crate) fn write(&self, op: Op) -> Result<WriteOutcome, WriteError> {
        self.engine().write(vec![op]).remove(0)
    }

    /// Keys of the hits, nearest first.
    pub(crate) fn keys(&self, query: &Query<'_>) -> Vec<String> {
        keys(&self.engine().search(query).unwrap())
    }

    pub(crate) fn filter(&self, collection: &str, text: &str) -> Filter {
        self.engine().parse_filter(collection, text).unwrap()
    }

    pub(crate) fn count(&self, collection: &str, filter: &str) -> u64 {
        let filter = self.filter(collection, filter);
        self.engine().count(collection, Some(&filter)).unwrap()
    }

    /// Keys of all documents of a collection, from a scroll in small pages.
    pub(crate) fn scroll(&self, collection: &str, filter: Option<&Filter>) -> Vec<String> {
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            let page = self.engine().scroll(collection, filter, after, 3).unwrap();
            assert!(page.documents.len() <= 3);
            keys.extend(page.documents.iter().map(|document| text(&document.key)));
            after = page.next;
            if after.is_none() {
                return keys;
            }
        }
    }

    /// Waits until all tails are empty. Index workers drain them in the background.
    pub(crate) fn settle(&self) {
        let is_settled = || self.engine().collections().iter().all(|collection| collection.tail == 0);
        wait_until("the tails are not drained", is_settled);
    }
}

/// Waits until a condition is met by a background thread. Fails with `message` after a minute.
pub(crate) fn wait_until(message: &str, mut is_met: impl FnMut() -> bool) {
    const TIMEOUT: Duration = Duration::from_secs(60);
    let start = Instant::now();
    while !is_met() {
        assert!(start.elapsed() < TIMEOUT, "{message}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

pub(crate) fn field(name: &str, value: &[u8]) -> Field {
    Field { name: name.as_bytes().into(), value: value.into() }
}

pub(crate) fn fields(values: &[(&str, &[u8])]) -> Vec<Field> {
    values.iter().map(|(name, value)| field(name, value)).collect()
}

pub(crate) fn put(key: &str, values: &[(&str, &[u8])]) -> Op {
    Op::Put {
        key: key.into(),
        fields: fields(values),
        expires_at_ms: None,
        vectors: Vec::new(),
        expected: Expected::Any,
    }
}

pub(crate) fn put_until(key: &str, values: &[(&str, &[u8])], expires_at_ms: u64) -> Op {
    let Op::Put { key, fields, vectors, expected, .. } = put(key, values) else { unreachable!() };
    Op::Put { key, fields, expires_at_ms: Some(expires_at_ms), vectors, expected }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn keys(found: &SearchResult) -> Vec<String> {
    found.hits.iter().map(|hit| text(&hit.document.key)).collect()
}

/// A vector that differs for every number and is not far from the others.
pub(crate) fn vector(number: u64) -> Vec<f32> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..DIM)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

pub(crate) fn blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn query<'a>(collection: &'a str, vector: &'a [f32], k: usize) -> Query<'a> {
    Query {
        collection,
        legs: vec![Leg::Vector(VectorLeg { field: None, vector, ef_search: None, exact: false })],
        order: Order::Score,
        page: Page::first(k),
        filter: None,
        min_score: None,
        fields: None,
    }
}

/// Changes to a query with one vector leg.
pub(crate) trait QueryExt<'a>: Sized {
    fn query(&mut self) -> &mut Query<'a>;

    fn leg(&mut self) -> &mut VectorLeg<'a> {
        let [Leg::Vector(leg)] = self.query().legs.as_mut_slice() else { panic!("one vector leg") };
        leg
    }

    fn field(mut self, field: Option<&'a str>) -> Self {
        self.leg().field = field;
        self
    }

    fn ef_search(mut self, ef_search: Option<usize>) -> Self {
        self.leg().ef_search = ef_search;
        self
    }

    fn exact(mut self, exact: bool) -> Self {
        self.leg().exact = exact;
        self
    }

    fn offset(mut self, offset: usize) -> Self {
        self.query().page.offset = offset;
        self
    }

    fn k(mut self, k: usize) -> Self {
        self.query().page.k = k;
        self
    }
}

impl<'a> QueryExt<'a> for Query<'a> {
    fn query(&mut self) -> &mut Query<'a> {
        self
    }
}

pub(crate) fn hnsw() -> Algorithm {
    Algorithm::Hnsw { m: 8, ef_construction: 60, ef_search: 40 }
}

pub(crate) fn vector_field(
    name: &str,
    algorithm: Algorithm,
    metric: Metric,
    embed: Option<&[&str]>,
) -> FieldSchema {
    FieldSchema {
        name: name.to_owned(),
        kind: FieldKind::Vector(VectorSchema {
            algorithm,
            vector_type: VectorType::Float32,
            quantization: Quantization::None,
            dim: DIM,
            metric,
            embed: embed.map(|fields| Embedding {
                fields: fields.iter().map(|field| (*field).to_owned()).collect(),
                model: "toy".to_owned(),
            }),
        }),
    }
}

/// TEXT title and content, TAG category, NUMERIC year, VECTOR v in the documents.
pub(crate) fn schema(prefix: &str, algorithm: Algorithm, metric: Metric) -> Schema {
    let kinds = [
        ("title", FieldKind::Text),
        ("content", FieldKind::Text),
        ("category", FieldKind::Tag { separator: b',', case_sensitive: false }),
        ("year", FieldKind::Numeric),
    ];
    let mut fields: Vec<FieldSchema> =
        kinds.into_iter().map(|(name, kind)| FieldSchema { name: name.to_owned(), kind }).collect();
    fields.push(vector_field("v", algorithm, metric, None));
    Schema { prefixes: vec![prefix.as_bytes().to_vec()], fields, ttl: None }
}

/// Like [`schema`], but with a vector that is computed from title and content.
pub(crate) fn embedding_schema(prefix: &str) -> Schema {
    let mut schema = schema(prefix, hnsw(), Metric::Cosine);
    schema.fields[4] = vector_field("v", hnsw(), Metric::Cosine, Some(&["title", "content"]));
    schema
}

/// Simulates a model: the vector depends only on the text.
pub(crate) fn embed(text: &TextToEmbed) -> ComputedVector {
    let number = text.text.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    ComputedVector {
        collection: text.collection,
        field: text.field,
        passage: text.passage,
        model: [9; 16],
        values: vector(number),
    }
}

/// A put with every vector the engine requires.
pub(crate) fn embedded_put(engine: &Engine, key: &str, values: &[(&str, &[u8])]) -> Op {
    let Op::Put { key, fields, expires_at_ms, expected, .. } = put(key, values) else { unreachable!() };
    let vectors = engine.texts_to_embed(&key, &fields).iter().map(embed).collect();
    Op::Put { key, fields, expires_at_ms, vectors, expected }
}
