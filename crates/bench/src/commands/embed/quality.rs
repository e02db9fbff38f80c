//! What a vector is worth: how near it is to the one in float32, and whether it finds the same.

use ::embed::Tokens;
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
        let Engine::Peer(compute) = engine else {
            return Ok(self.float32.values.clone());
        };
        let tokens: Vec<Tokens> = self.texts.iter().map(|text| engines.model.tokenize(text)).collect();
        engines.peer()?.embed(compute, &TokensFile::new(tokens, 32, setting)?, setting)
    }
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

    let dim = engines.model.dim();
    let overlap_values = arguments.overlap_documents.min(packages.texts.len()) * dim;
    let truth = truth::exact(&packages.float32.values[..overlap_values], &queries.float32.values, dim);
    let mut cosine = Report::new(format, "embed cosine");
    let mut overlap = Report::new(format, "embed overlap");
    for engine in engines.all.clone() {
        let of_packages = packages.embedded(engine, engines, setting)?;
        let of_queries = queries.embedded(engine, engines, setting)?;
        let cosines: Vec<f64> = vectors::cosines(&packages.float32.values, &of_packages, dim)
            .take(arguments.cosine_texts)
            .collect();
        cosine.push(
            Row::new()
                .with("engine", engines.name(engine))
                .with("compute", engine.compute())
                .with("texts", cosines.len())
                .with_rounded("cosine_mean", cosines.iter().sum::<f64>() / cosines.len() as f64, 6)
                .with_rounded("cosine_min", cosines.iter().copied().fold(f64::INFINITY, f64::min), 6),
        )?;
        let found = truth::exact(&of_packages[..overlap_values], &of_queries, dim);
        overlap.push(
            Row::new()
                .with("engine", engines.name(engine))
                .with("query_compute", engine.compute())
                .with("document_compute", engine.compute())
                .with("documents", overlap_values / dim)
                .with("queries", queries.texts.len())
                .with_rounded("overlap_at_10_with_f32", truth::recall(&truth, &found), 4),
        )?;
    }
    cosine.finish()?;
    overlap.finish()
}
