//! What every sub-command is given: corpora, model, caches.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use embed::{ComputeType, Model};
use kernels::simd::{Cpu, Level};
use nearfield::{
    config::{Flags, Settings},
    service::Config,
};

use crate::corpus::Source;

/// The model everything is measured with, unless another directory is given.
const MODEL: &str = "all-MiniLM-L6-v2";

/// Options before or after any sub-command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Setting {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Model directory [default: all-MiniLM-L6-v2 under $NEARFIELD_HOME/models]
    #[arg(long, value_name = "DIR", global = true)]
    model: Option<PathBuf>,
    /// Where vectors, exact neighbours and virtual environments are kept
    #[arg(long, value_name = "DIR", global = true, default_value = "target/bench")]
    pub(crate) cache_dir: PathBuf,
    /// Instruction set to use at most: scalar, avx2, avx512 [default: the best there is]
    #[arg(long, value_name = "LEVEL", global = true, value_parser = level)]
    level: Option<Level>,
}

fn level(name: &str) -> Result<Level, String> {
    Level::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Level::ALL.into_iter().map(Level::name).collect();
        format!("no such level; there are {}", names.join(", "))
    })
}

impl Setting {
    /// The instruction set that is measured.
    pub(crate) fn cpu(&self) -> Cpu {
        let best = Cpu::detect();
        self.level.map_or(best, |level| best.at_most(level))
    }

    /// Where the model's files are.
    pub(crate) fn model_dir(&self) -> Result<PathBuf> {
        let dir = match &self.model {
            Some(dir) => dir.clone(),
            None => Settings::load(&Flags::default(), None)?.service().models_dir.join(MODEL),
        };
        if dir.join("model.safetensors").exists() {
            return Ok(dir.canonicalize()?);
        }
        Err(anyhow!(
            "no model.safetensors in {}: run `nearfield model pull`, or give --model DIR",
            dir.display()
        ))
    }

    /// The directory of models that the model is in, for a service that finds it by name.
    pub(crate) fn models_dir(&self) -> Result<PathBuf> {
        let dir = self.model_dir()?;
        let parent = dir.parent().with_context(|| format!("{} has no directory above it", dir.display()))?;
        Ok(parent.to_owned())
    }

    /// The options that give another process of this program the same setting; they go before the
    /// sub-command.
    pub(crate) fn arguments(&self) -> Result<Vec<OsString>> {
        let model = self.model_dir()?;
        let mut arguments: Vec<OsString> = Vec::new();
        for (name, dir) in
            [("--shared", &self.source.shared), ("--model", &model), ("--cache-dir", &self.cache_dir)]
        {
            arguments.extend([name.into(), dir.into()]);
        }
        arguments.extend(["--level".into(), self.cpu().level().name().into()]);
        Ok(arguments)
    }

    /// What a service over `data_dir` is opened with: everything else as the program has it.
    pub(crate) fn service(&self, data_dir: &Path) -> Result<Config> {
        Ok(Config { models_dir: self.models_dir()?, ..self.service_without_model(data_dir)? })
    }

    /// [`Setting::service`] for documents that bring their own vectors.
    pub(crate) fn service_without_model(&self, data_dir: &Path) -> Result<Config> {
        let flags = Flags::default().with("data_dir", data_dir).with("cpu", self.cpu().level().name());
        Ok(Settings::load(&flags, None)?.service())
    }

    /// The model, loaded.
    pub(crate) fn model(&self) -> Result<Model> {
        let dir = self.model_dir()?;
        Model::load(&dir, self.cpu(), &ComputeType::ALL)
            .with_context(|| format!("load the model in {}", dir.display()))
    }
}
