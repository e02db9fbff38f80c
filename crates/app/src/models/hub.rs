//! Model files from the Hugging Face hub: from its local cache, or over HTTPS.
//!
//! The hub's client crate would add 130 dependencies for one GET request per file.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use ureq::http::StatusCode;

use super::{
    directory,
    download::Download,
    error::FetchError,
    files::{KnownModel, ModelFile},
    progress::PullProgress,
    staging::Staging,
};

/// Addresses of the hub and its local caches.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Scheme and host, without a trailing `/`.
    pub endpoint: String,
    /// Directories with the layout of the hub's cache, in order of preference.
    pub caches: Vec<PathBuf>,
}

impl Hub {
    /// The public hub.
    pub const ENDPOINT: &'static str = "https://huggingface.co";

    /// Copies the model from a cache: `models--OWNER--NAME/snapshots/REVISION/FILE`.
    pub(super) fn fetch_cached(
        &self,
        model: &KnownModel,
        into: &Staging,
        progress: &dyn PullProgress,
    ) -> Result<(), FetchError> {
        if self.caches.is_empty() {
            return Err(FetchError::NoCache);
        }
        let folder = format!("models--{}", model.hub_repository.replace('/', "--"));
        for cache in &self.caches {
            let snapshots = cache.join(&folder).join("snapshots");
            for snapshot in subdirectories(&snapshots)? {
                if model.files.iter().all(|file| snapshot.join(file.path).is_file()) {
                    return directory::fetch(&snapshot, model.files, into, progress);
                }
            }
        }
        Err(FetchError::NoSnapshot { directories: self.caches.clone() })
    }

    /// Downloads the model.
    pub(super) fn fetch_remote(
        &self,
        model: &KnownModel,
        into: &Staging,
        progress: &dyn PullProgress,
    ) -> Result<(), FetchError> {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder()
                .timeout_resolve(Some(Duration::from_secs(5)))
                .timeout_connect(Some(Duration::from_secs(5)))
                .timeout_recv_response(Some(Duration::from_secs(20)))
                .timeout_recv_body(Some(Duration::from_secs(30 * 60)))
                .user_agent(concat!("nearfield/", env!("CARGO_PKG_VERSION")))
                .build(),
        );
        for file in model.files {
            self.download(&agent, model, file, into, progress)?;
        }
        Ok(())
    }

    fn download(
        &self,
        agent: &ureq::Agent,
        model: &KnownModel,
        file: &ModelFile,
        into: &Staging,
        progress: &dyn PullProgress,
    ) -> Result<(), FetchError> {
        let url = format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint, model.hub_repository, model.hub_revision, file.path
        );
        let get = |from: u64| {
            let request = match from {
                0 => agent.get(&url),
                _ => agent.get(&url).header("range", format!("bytes={from}-")),
            };
            request.call().map_err(|error| FetchError::Http { url: url.clone(), source: Box::new(error) })
        };
        let Some(pin) = file.pin else {
            let body = get(0)?.into_body();
            progress.file_started(file.path, body.content_length());
            return into.write_file(file, &url, &mut body.into_reader(), progress);
        };
        progress.file_started(file.path, Some(pin.bytes));
        let download = Download::resume(into.download_path(file), file, pin, &url)?;
        let open = |from: u64| {
            let reply = get(from)?;
            let is_rest = reply.status() == StatusCode::PARTIAL_CONTENT;
            let body = reply.into_body();
            if let Some(found) = body.content_length().filter(|bytes| !is_rest && *bytes != pin.bytes) {
                // The page of a proxy, for example.
                let (location, expected) = (url.clone(), pin.bytes);
                return Err(FetchError::Length { file: file.path, location, expected, found });
            }
            let mut body = body.into_reader();
            if !is_rest {
                // The server sends the whole file whatever the range.
                let skipped = io::copy(&mut body.by_ref().take(from), &mut io::sink());
                skipped.map_err(|source| FetchError::Read {
                    file: file.path,
                    location: url.clone(),
                    source,
                })?;
            }
            Ok(Box::new(body) as Box<dyn Read>)
        };
        let complete = download.finish(open, progress)?;
        into.adopt(file, &complete)
    }
}

/// The subdirectories of `path`, sorted; none if it does not exist.
fn subdirectories(path: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(FetchError::Io { path: path.to_owned(), source });
        }
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FetchError::io(path))?;
        if entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
