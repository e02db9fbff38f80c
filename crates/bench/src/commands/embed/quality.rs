//! Quality of the vectors: their similarity to those in float32, and whether they find the same documents.

use ::embed::{ComputeType, Tokens};
use anyhow::Result;

use super::{EmbedArguments, Engine, Engines, onnxruntime::TokensFile};
use crate::{
    corpus,
    global_options::GlobalOptions,
    ground_truth,
    report::{Format, Report, Row},
    vectors::{self, Vectors},
};

/// Texts and their float32 vectors.
struct Texts {
    texts: Vec<String>,
    float32: Vectors,
}

impl Texts {
    fn of(
        engines: &Engines<'_>,
        file: &std::path::Path,
        texts: Vec<String>,
        global: &GlobalOptions,
    ) -> Result<Texts> {
        let views: Vec<&str> = texts.iter().map(String::as_str).collect();
        let float32 = vectors::of_texts(&global.cache_dir, engines.model, file, &views)?;
        Ok(Texts { texts, float32 })
    }

    /// Their vectors by an engine.
    fn embed(&self, engine: Engine, engines: &mut Engines<'_>, global: &GlobalOptions) -> Result<Vec<f32>> {
        eprintln!("embedding {} texts in {} by {}", self.texts.len(), engine.compute(), engines.name(engine));
        let compute = match engine {
            Engine::Nearfield(ComputeType::F32) => return Ok(self.float32.values.clone()),
            Engine::Nearfield(compute) => {
                let views: Vec<&str> = self.texts.iter().map(String::as_str).collect();
                return Ok(vectors::embed_texts(engines.model, &views, compute));
            }
            Engine::Peer(compute) => compute,
        };
        let tokens: Vec<Tokens> = self.texts.iter().map(|text| engines.model.tokenize(text)).collect();
        engines.peer()?.embed(compute, &TokensFile::new(tokens, 32, global)?, global)
    }
}

/// An engine's vectors.
struct EngineVectors {
    engine: Engine,
    packages: Vec<f32>,
    queries: Vec<f32>,
}

/// Measures and prints.
pub(super) fn run(
    engines: &mut Engines<'_>,
    arguments: &EmbedArguments,
    global: &GlobalOptions,
    format: Format,
) -> Result<()> {
    let rows = arguments.overlap_documents.max(arguments.cosine_texts);
    let packages = corpus::documents(&global.data.packages()?, rows)?;
    let packages = packages.into_iter().map(|document| document.text).collect();
    let packages = Texts::of(engines, &global.data.packages()?, packages, global)?;
    let mut queries = corpus::queries(&global.data.package_queries()?)?;
    queries.truncate(arguments.overlap_queries);
    let queries = Texts::of(engines, &global.data.package_queries()?, queries, global)?;

    let mut all = Vec::new();
    for engine in engines.all.clone() {
        let (packages, queries) =
            (packages.embed(engine, engines, global)?, queries.embed(engine, engines, global)?);
        all.push(EngineVectors { engine, packages, queries });
    }
    cosines(engines, arguments, &packages.float32, &all, format)?;
    overlaps(engines, arguments, &packages.float32, &queries.float32, &all, format)
}

fn cosines(
    engines: &Engines<'_>,
    arguments: &EmbedArguments,
    float32: &Vectors,
    all: &[EngineVectors],
    format: Format,
) -> Result<()> {
    let mut report = Report::new(format, "embed cosine");
    for embedded in all {
        let cosines: Vec<f64> = vectors::cosines(&float32.values, &embedded.packages, float32.dim)
            .take(arguments.cosine_texts)
            .collect();
        report.push(
            Row::new()
                .with("engine", engines.name(embedded.engine))
                .with("compute", embedded.engine.compute())
                .with("texts", cosines.len())
                .with_rounded("cosine_mean", cosines.iter().sum::<f64>() / cosines.len() as f64, 6)
                .with_rounded("cosine_min", cosines.iter().copied().fold(f64::INFINITY, f64::min), 6),
        )?;
    }
    report.finish()
}

/// Each pair of Nearfield's arithmetics, one for queries and one for documents; each of the peer's with itself.
fn overlaps(
    engines: &Engines<'_>,
    arguments: &EmbedArguments,
    packages: &Vectors,
    queries: &Vectors,
    all: &[EngineVectors],
    format: Format,
) -> Result<()> {
    let dim = packages.dim;
    let documents = arguments.overlap_documents.min(packages.rows());
    let truth = ground_truth::nearest(&packages.values[..documents * dim], &queries.values, dim);
    let mut report = Report::new(format, "embed overlap");
    for for_queries in all {
        for for_documents in all {
            let both_nearfield = matches!(
                (for_queries.engine, for_documents.engine),
                (Engine::Nearfield(_), Engine::Nearfield(_))
            );
            if !both_nearfield && for_queries.engine != for_documents.engine {
                continue;
            }
            let found =
                ground_truth::nearest(&for_documents.packages[..documents * dim], &for_queries.queries, dim);
            report.push(
                Row::new()
                    .with("engine", engines.name(for_queries.engine))
                    .with("query_compute", for_queries.engine.compute())
                    .with("document_compute", for_documents.engine.compute())
                    .with("documents", documents)
                    .with("queries", queries.rows())
                    .with_rounded("overlap_at_10_with_f32", ground_truth::recall(&truth, &found), 4),
            )?;
        }
    }
    report.finish()
}
