//! Sections 8.2 and 6.4 of the article as tables: the effect of M, ef_construction and ef_search, and what
//! FLOAT16, int8 and int4 save and cost.

use ::index::{Algorithm, Index, Options, Quantization, SearchParams, VectorType};
use anyhow::Result;

use super::{
    BuildResult, IndexArguments, QUANTIZATIONS, QuerySet,
    competitor::{self, EngineLabel},
    curve::CurvePoint,
    name_of, ours, packages,
};
use crate::{
    global_options::GlobalOptions,
    ground_truth,
    machine::CorePin,
    report::{Format, Report, Row},
    scifact::Dataset,
    vectors::{self, Vectors},
};

/// M and ef_construction, as in the article.
const MS: [usize; 4] = [8, 16, 32, 48];
const EF_CONSTRUCTIONS: [usize; 3] = [100, 200, 500];
/// The ef_search at which those are compared.
const EF_OF_GRID: usize = 50;
/// The default ef_search of a collection.
const EF_DEFAULT: usize = 80;
/// The types and quantizations of section 6.4.
const TYPES_AND_QUANTIZATIONS: [(VectorType, Quantization); 5] = [
    (VectorType::Float32, Quantization::None),
    (VectorType::Float16, Quantization::None),
    (VectorType::Float32, Quantization::Int8),
    (VectorType::Float16, Quantization::Int8),
    (VectorType::Float32, Quantization::Int4),
];

/// Measures and prints.
pub(super) fn run(arguments: &IndexArguments, global: &GlobalOptions, format: Format) -> Result<()> {
    let (corpus, queries) = packages(arguments.limit, arguments.queries, global)?;
    let query_set = QuerySet::all(&corpus, queries, global)?;
    let scifact = SciFact::load(global)?;
    let _pin = CorePin::to_core(arguments.core)?;
    parameters(&corpus, &query_set, arguments, global, format)?;
    ef_search(&corpus, &query_set, arguments, global, format)?;
    types(&corpus, &query_set, &scifact, arguments, global, format)
}

/// Section 8.2: M and ef_construction.
fn parameters(
    corpus: &Vectors,
    query_set: &QuerySet,
    arguments: &IndexArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let mut report = Report::new(format, "index article 8.2 m, ef_construction");
    let grid: Vec<(usize, usize)> = match arguments.grid.is_empty() {
        true => MS.into_iter().flat_map(|m| EF_CONSTRUCTIONS.map(|ef| (m, ef))).collect(),
        false => arguments.grid.clone(),
    };
    for &quantization in &arguments.quantization {
        for &(m, ef_construction) in &grid {
            eprintln!("M {m}, ef_construction {ef_construction}, {}", name_of(&QUANTIZATIONS, &quantization));
            let algorithm = Algorithm::Hnsw { m, ef_construction };
            let options = competitor::options(corpus.dim, arguments, VectorType::Float32, quantization);
            let (index, built) = ours::build(corpus, Options { algorithm, ..options }, global.cpu())?;
            let point = median(&index, query_set, EF_OF_GRID, arguments.runs);
            let row = EngineLabel::nearfield(VectorType::Float32, quantization)
                .name(Row::new())
                .with("documents", corpus.rows())
                .with("m", m)
                .with("ef_construction", ef_construction);
            report.push(cost(measured(row, &point), &built))?;
        }
    }
    report.finish()
}

/// Section 8.2: ef_search.
fn ef_search(
    corpus: &Vectors,
    query_set: &QuerySet,
    arguments: &IndexArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let mut report = Report::new(format, "index article 8.2 ef_search");
    for &quantization in &arguments.quantization {
        let options = competitor::options(corpus.dim, arguments, VectorType::Float32, quantization);
        let (index, _) = ours::build(corpus, options, global.cpu())?;
        for &ef in &arguments.ef {
            let point = median(&index, query_set, ef, arguments.runs);
            let row = EngineLabel::nearfield(VectorType::Float32, quantization)
                .name(Row::new())
                .with("documents", corpus.rows())
                .with("m", arguments.m)
                .with("ef_construction", arguments.ef_construction);
            report.push(measured(row, &point))?;
        }
    }
    report.finish()
}

/// Section 6.4: types and quantization.
fn types(
    corpus: &Vectors,
    query_set: &QuerySet,
    scifact: &SciFact,
    arguments: &IndexArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let mut report = Report::new(format, "index article 6.4");
    let mut first_ndcg = None;
    for (vector_type, quantization) in TYPES_AND_QUANTIZATIONS {
        let label = EngineLabel::nearfield(vector_type, quantization);
        eprintln!("{}, {}", label.vector_type, label.quantization);
        let options = competitor::options(corpus.dim, arguments, vector_type, quantization);
        let (index, built) = ours::build(corpus, options, global.cpu())?;
        let point = median(&index, query_set, EF_DEFAULT, arguments.runs);
        drop(index);
        let (index, _) = ours::build(&scifact.abstracts, options, global.cpu())?;
        let exact = scifact.ndcg(&index, true);
        let float32_ndcg = *first_ndcg.get_or_insert(exact);
        let row = cost(measured(label.name(Row::new()).with("documents", corpus.rows()), &point), &built)
            .with_rounded("scifact_ndcg_at_10", scifact.ndcg(&index, false), 4)
            .with_rounded("scifact_ndcg_at_10_exact", exact, 4)
            .with_rounded("difference_to_float32", exact - float32_ndcg, 4);
        report.push(row)?;
    }
    report.finish()
}

fn median(index: &Index, query_set: &QuerySet, ef: usize, runs: usize) -> CurvePoint {
    CurvePoint::of(ef, &(0..runs).map(|_| ours::search(index, query_set, ef)).collect::<Vec<_>>())
}

fn measured(row: Row, point: &CurvePoint) -> Row {
    point.add_to(row.with_rounded("ef_search", point.ef, 0))
}

fn cost(row: Row, built: &BuildResult) -> Row {
    built.add_to(row).with_rounded("refine_s", built.refine_s, 1)
}

/// SciFact's float32 vectors, to measure nDCG by the type of an index.
struct SciFact {
    dataset: Dataset,
    abstracts: Vectors,
    claims: Vec<f32>,
}

impl SciFact {
    fn load(global: &GlobalOptions) -> Result<SciFact> {
        let dataset = Dataset::load(&global.data.scifact()?)?;
        let model = global.model()?;
        let texts: Vec<&str> = dataset.texts.iter().map(String::as_str).collect();
        let abstracts = vectors::of_texts(&global.cache_dir, &model, &dataset.corpus, &texts)?;
        let claims: Vec<&str> = dataset.queries.iter().map(String::as_str).collect();
        let claims = vectors::embed_texts(&model, &claims, embed::ComputeType::F32);
        Ok(SciFact { dataset, abstracts, claims })
    }

    /// nDCG@10 of an index of the abstracts, by exact search or through the graph.
    fn ndcg(&self, index: &Index, exact: bool) -> f64 {
        let search = SearchParams { k: ground_truth::K, ef: EF_DEFAULT, allowed: None, exact };
        let found: Vec<u32> = self
            .claims
            .chunks_exact(self.abstracts.dim)
            .flat_map(|claim| {
                let labels = index.search(claim, &search).into_iter().map(|neighbour| neighbour.label);
                labels.chain(std::iter::repeat(u32::MAX)).take(ground_truth::K)
            })
            .collect();
        self.dataset.mean_ndcg(&found)
    }
}
