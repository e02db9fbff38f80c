//! Options that every sub-command takes: data, model, cache directory, instruction set.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use embed::{ComputeType, Model};
use kernels::simd::{Cpu, Level};
use nearfield::{
    config::{Flags, Settings},
    service::Config,
};
use tempfile::TempDir;

use crate::data::DataDir;

/// The model used unless `--model` names another.
const MODEL: &str = "all-MiniLM-L6-v2";

/// Options that may precede or follow any sub-command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GlobalOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Model directory [default: all-MiniLM-L6-v2 under $NEARFIELD_HOME/models]
    #[arg(long, value_name = "DIR", global = true)]
    model: Option<PathBuf>,
    /// Directory for embeddings, exact neighbours and virtual environments
    #[arg(long, value_name = "DIR", global = true, default_value = "target/bench")]
    pub(crate) cache_dir: PathBuf,
    /// Highest instruction set to use: scalar, avx2, avx512 [default: the best available]
    #[arg(long, value_name = "LEVEL", global = true, value_parser = level)]
    level: Option<Level>,
}

fn level(name: &str) -> Result<Level, String> {
    Level::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Level::ALL.into_iter().map(Level::name).collect();
        format!("unknown level; expected one of {}", names.join(", "))
    })
}

impl GlobalOptions {
    /// The instruction set to measure.
    pub(crate) fn cpu(&self) -> Cpu {
        let best = Cpu::detect();
        self.level.map_or(best, |level| best.at_most(level))
    }

    /// The directory of the model's files.
    pub(crate) fn model_dir(&self) -> Result<PathBuf> {
        let dir = match &self.model {
            Some(dir) => dir.clone(),
            None => Settings::load(&Flags::default(), None)?.service().models_dir.join(MODEL),
        };
        if dir.join("model.safetensors").exists() {
            return Ok(dir.canonicalize()?);
        }
        Err(anyhow!(
            "no model.safetensors in {}: run `nearfield model pull`, or pass --model DIR",
            dir.display()
        ))
    }

    /// The parent of the model's directory, where a service finds the model by name.
    pub(crate) fn models_dir(&self) -> Result<PathBuf> {
        let dir = self.model_dir()?;
        let parent = dir.parent().with_context(|| format!("{} has no parent directory", dir.display()))?;
        Ok(parent.to_owned())
    }

    /// A temporary directory on the file system of the cache.
    pub(crate) fn temporary_dir(&self) -> Result<TempDir> {
        let cache_dir = &self.cache_dir;
        fs::create_dir_all(cache_dir).with_context(|| format!("create {}", cache_dir.display()))?;
        tempfile::tempdir_in(cache_dir)
            .with_context(|| format!("create a directory in {}", cache_dir.display()))
    }

    /// The command-line arguments that give another process of this program the same options; they precede
    /// the sub-command.
    pub(crate) fn arguments(&self) -> Result<Vec<OsString>> {
        let model = self.model_dir()?;
        let mut arguments: Vec<OsString> = Vec::new();
        for (name, dir) in
            [("--data", self.data.path()), ("--model", &model), ("--cache-dir", &self.cache_dir)]
        {
            arguments.extend([name.into(), dir.into()]);
        }
        arguments.extend(["--level".into(), self.cpu().level().name().into()]);
        Ok(arguments)
    }

    /// The configuration of a service over `data_dir`, otherwise with the program's defaults.
    pub(crate) fn service(&self, data_dir: &Path) -> Result<Config> {
        Ok(Config { models_dir: self.models_dir()?, ..self.service_without_model(data_dir)? })
    }

    /// [`GlobalOptions::service`] for documents that come with vectors.
    pub(crate) fn service_without_model(&self, data_dir: &Path) -> Result<Config> {
        let flags = Flags::default().with("data_dir", data_dir).with("cpu", self.cpu().level().name());
        Ok(Settings::load(&flags, None)?.service())
    }

    /// Loads the model.
    pub(crate) fn model(&self) -> Result<Model> {
        let dir = self.model_dir()?;
        Model::load(&dir, self.cpu(), &ComputeType::ALL)
            .with_context(|| format!("load the model in {}", dir.display()))
    }
}
