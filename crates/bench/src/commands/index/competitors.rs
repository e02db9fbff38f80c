//! All engines of a run.

use anyhow::Result;

use super::{
    IndexArguments,
    competitor::{Competitor, EngineLabel},
};
use crate::{global_options::GlobalOptions, vectors::Vectors};

/// Engines with their indexes, and the engines that could not be started.
pub(super) struct Competitors {
    pub(super) competitors: Vec<Competitor>,
    pub(super) unavailable: Vec<(EngineLabel, String)>,
}

impl Competitors {
    /// Builds every index, Nearfield's first. The caller has pinned this thread.
    pub(super) fn build(
        corpus: &Vectors,
        arguments: &IndexArguments,
        global: &GlobalOptions,
    ) -> Result<Competitors> {
        let mut competitors = Competitors { competitors: Vec::new(), unavailable: Vec::new() };
        for &vector_type in &arguments.vector_type {
            for &quantization in &arguments.quantization {
                let nearfield = Competitor::nearfield(corpus, vector_type, quantization, arguments, global)?;
                competitors.competitors.push(nearfield);
            }
        }
        for variant in arguments.peers.iter().flat_map(|library| library.variants()) {
            match Competitor::library(&variant, corpus, arguments, global) {
                Ok(competitor) => competitors.competitors.push(competitor),
                Err(error) => {
                    let label = EngineLabel::library(&variant, None);
                    eprintln!("{} is unavailable: {error:#}", label.legend());
                    competitors.unavailable.push((label, format!("unavailable: {error:#}")));
                }
            }
        }
        Ok(competitors)
    }
}
