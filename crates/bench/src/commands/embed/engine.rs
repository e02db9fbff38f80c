//! The engines that embed: each of Nearfield's arithmetics, and each of onnxruntime's.

use std::hint::black_box;

use ::embed::{ComputeType, Model, Tokens};
use anyhow::{Context, Result};

use super::onnxruntime::{Onnxruntime, TokensFile};
use crate::{machine, sample::median};

/// One way to embed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// Nearfield's.
    Nearfield(ComputeType),
    /// onnxruntime's, by the peer's name for it.
    Peer(&'static str),
}

impl Engine {
    /// The name of its arithmetic.
    pub(super) fn compute(self) -> &'static str {
        match self {
            Engine::Nearfield(compute) => compute.name(),
            Engine::Peer(compute) => compute,
        }
    }
}

/// All engines, measured in turn.
pub(super) struct Engines<'a> {
    pub(super) model: &'a Model,
    pub(super) peer: Option<Onnxruntime>,
    pub(super) all: Vec<Engine>,
}

impl<'a> Engines<'a> {
    /// Nearfield's engines, and the peer's if there is one.
    pub(super) fn new(model: &'a Model, peer: Option<Onnxruntime>) -> Engines<'a> {
        let mut all = ComputeType::ALL.map(Engine::Nearfield).to_vec();
        if peer.is_some() {
            all.extend(["f32", "int8"].map(Engine::Peer));
        }
        Engines { model, peer, all }
    }

    /// The engine's name, with the version of a peer.
    pub(super) fn name(&self, engine: Engine) -> String {
        match (engine, &self.peer) {
            (Engine::Peer(_), Some(peer)) => format!("onnxruntime {}", peer.version),
            _ => "nearfield".to_owned(),
        }
    }

    /// Median CPU microseconds per text, over at least three passes of one batch each and at least `seconds`.
    pub(super) fn measure(&mut self, engine: Engine, texts: &TokensFile, seconds: f64) -> Result<f64> {
        let compute = match engine {
            Engine::Nearfield(compute) => compute,
            Engine::Peer(compute) => return self.peer()?.measure(compute, texts, seconds),
        };
        let batches: Vec<&[Tokens]> = texts.batches().collect();
        black_box(self.model.embed(batches[0], compute));
        let mut times = Vec::new();
        let started = std::time::Instant::now();
        for batch in batches.iter().cycle() {
            let began = machine::thread_cpu();
            black_box(self.model.embed(black_box(batch), compute));
            times.push((machine::thread_cpu() - began).as_secs_f64() * 1e6 / batch.len() as f64);
            if times.len() >= 3 && started.elapsed().as_secs_f64() >= seconds {
                break;
            }
        }
        Ok(median(&times))
    }

    /// CPU seconds for all texts. Nearfield takes them in their order, since it does not pad; the peer gets them
    /// sorted by length.
    pub(super) fn bulk(&mut self, engine: Engine, texts: &TokensFile) -> Result<f64> {
        let compute = match engine {
            Engine::Nearfield(compute) => compute,
            Engine::Peer(compute) => return self.peer()?.bulk(compute, texts),
        };
        let began = machine::thread_cpu();
        for batch in texts.batches() {
            black_box(self.model.embed(batch, compute));
        }
        Ok((machine::thread_cpu() - began).as_secs_f64())
    }

    pub(super) fn peer(&mut self) -> Result<&mut Onnxruntime> {
        self.peer.as_mut().context("the peer was excluded by --peers none")
    }
}

/// The peer's time with this arithmetic divided by `time`; NaN if the peer was not measured.
pub(super) fn ratio(engines: &[Engine], times: &[f64], compute: &'static str, time: f64) -> f64 {
    let peer = engines.iter().position(|engine| *engine == Engine::Peer(compute));
    peer.map_or(f64::NAN, |peer| times[peer] / time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_peers_time_divided_by_the_time_and_nan_without_the_peer() {
        let engines = [Engine::Nearfield(ComputeType::F32), Engine::Peer("f32")];
        assert_eq!(ratio(&engines, &[2.0, 5.0], "f32", 2.0), 2.5);
        assert!(ratio(&engines, &[2.0, 5.0], "int8", 2.0).is_nan());
    }
}
