//! What a vector is worth: how near it is to the one in float32, and whether it finds the same.

use ::embed::{ComputeType, Tokens};
use anyhow::Result;

use super::{Arguments, Engine, Engines, onnxruntime::TokensFile};
use crate::{
    corpus,
    report::{Format, Report, Row},
    setting::Setting,
    truth,
    vectors::{self, Vectors},
};

/// Texts and their vectors in float32, ours.
struct Texts {
    texts: Vec<String>,
    float32: Vectors,
}

impl Texts {
    fn of(
        engines: &Engines<'_>,
        file: &std::path::Path,
        texts: Vec<String>,
        setting: &Setting,
    ) -> Result<Texts> {
        let views: Vec<&str> = texts.iter().map(String::as_str).collect();
        let float32 = vectors::of_texts(&setting.cache_dir, engines.model, file, &views)?;
        Ok(Texts { texts, float32 })
    }

    /// The vectors an engine makes of them.
    fn embedded(&self, engine: Engine, engines: &mut Engines<'_>, setting: &Setting) -> Result<Vec<f32>> {
        eprintln!("embedding {} texts in {} by {}", self.texts.len(), engine.compute(), engines.name(engine));
        let compute = match engine {
            Engine::Ours(ComputeType::F32) => return Ok(self.float32.values.clone()),
            Engine::Ours(compute) => {
                let views: Vec<&str> = self.texts.iter().map(String::as_str).collect();
                return Ok(vectors::embed_texts(engines.model, &views, compute));
            }
            Engine::Peer(compute) => compute,
        };
        let tokens: Vec<Tokens> = self.texts.iter().map(|text| engines.model.tokenize(text)).collect();
        engines.peer()?.embed(compute, &TokensFile::new(tokens, 32, setting)?, setting)
    }
}

/// An engine's vectors.
struct Embedded {
    engine: Engine,
    packages: Vec<f32>,
    queries: Vec<f32>,
}

/// Measures and prints.
pub(super) fn run(
    engines: &mut Engines<'_>,
    arguments: &Arguments,
    setting: &Setting,
    format: Format,
) -> Result<()> {
    let rows = arguments.overlap_documents.max(arguments.cosine_texts);
    let packages = corpus::documents(&setting.source.packages(), rows)?;
    let packages = packages.into_iter().map(|document| document.text).collect();
    let packages = Texts::of(engines, &setting.source.packages(), packages, setting)?;
    let mut queries = corpus::queries(&setting.source.packages_queries())?;
    queries.truncate(arguments.overlap_queries);
    let queries = Texts::of(engines, &setting.source.packages_queries(), queries, setting)?;

    let mut all = Vec::new();
    for engine in engines.all.clone() {
        let (packages, queries) =
            (packages.embedded(engine, engines, setting)?, queries.embedded(engine, engines, setting)?);
        all.push(Embedded { engine, packages, queries });
    }
    cosines(engines, arguments, &packages.float32, &all, format)?;
    overlaps(engines, arguments, &packages.float32, &queries.float32, &all, format)
}

fn cosines(
    engines: &Engines<'_>,
    arguments: &Arguments,
    float32: &Vectors,
    all: &[Embedded],
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

/// Every pair of ours, one for the query and one for the documents; the peer's each with itself.
fn overlaps(
    engines: &Engines<'_>,
    arguments: &Arguments,
    packages: &Vectors,
    queries: &Vectors,
    all: &[Embedded],
    format: Format,
) -> Result<()> {
    let dim = packages.dim;
    let documents = arguments.overlap_documents.min(packages.rows());
    let truth = truth::exact(&packages.values[..documents * dim], &queries.values, dim);
    let mut report = Report::new(format, "embed overlap");
    for asked in all {
        for searched in all {
            let both_ours = matches!((asked.engine, searched.engine), (Engine::Ours(_), Engine::Ours(_)));
            if !both_ours && asked.engine != searched.engine {
                continue;
            }
            let found = truth::exact(&searched.packages[..documents * dim], &asked.queries, dim);
            report.push(
                Row::new()
                    .with("engine", engines.name(asked.engine))
                    .with("query_compute", asked.engine.compute())
                    .with("document_compute", searched.engine.compute())
                    .with("documents", documents)
                    .with("queries", queries.rows())
                    .with_rounded("overlap_at_10_with_f32", truth::recall(&truth, &found), 4),
            )?;
        }
    }
    report.finish()
}
