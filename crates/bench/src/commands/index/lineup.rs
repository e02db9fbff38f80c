//! All engines of a run.

use anyhow::Result;

use super::{
    Arguments,
    contender::{Contender, Label},
};
use crate::{setting::Setting, vectors::Vectors};

/// Engines that stand, and those that could not be had.
pub(super) struct Lineup {
    pub(super) contenders: Vec<Contender>,
    pub(super) absent: Vec<(Label, String)>,
}

impl Lineup {
    /// Builds every index: ours, then the libraries. The caller is held to the core.
    pub(super) fn build(corpus: &Vectors, arguments: &Arguments, setting: &Setting) -> Result<Lineup> {
        let mut lineup = Lineup { contenders: Vec::new(), absent: Vec::new() };
        for &vector_type in &arguments.vector_type {
            for &quantization in &arguments.quantization {
                let ours = Contender::ours(corpus, vector_type, quantization, arguments, setting)?;
                lineup.contenders.push(ours);
            }
        }
        for variant in arguments.libraries().iter().flat_map(|library| library.variants()) {
            match Contender::library(&variant, corpus, arguments, setting) {
                Ok(contender) => lineup.contenders.push(contender),
                Err(error) => {
                    let label = Label::library(&variant, None);
                    eprintln!("{} is absent: {error:#}", label.legend());
                    lineup.absent.push((label, format!("absent: {error:#}")));
                }
            }
        }
        Ok(lineup)
    }
}
