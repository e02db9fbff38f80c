//! Where a test collection's documents are indexed: a directory, or a collection lent by a Redis.

use std::{path::Path as FilePath, sync::Arc};

use anyhow::Context as _;
use axum::http::Method;
use tempfile::TempDir;

use super::super::{
    Session,
    client::{Client, Path},
    exit::Usage,
};
use service::Store;

/// The collection in a directory that holds nothing else.
const COLLECTION: &str = "eval";

/// An empty collection to measure in.
pub(super) struct TestBed {
    pub(super) client: Arc<Client>,
    pub(super) collection: String,
    /// Whether the collection has to be dropped at the end.
    lent: bool,
    /// Goes at the end.
    _directory: Option<TempDir>,
}

impl TestBed {
    pub(super) fn set_up(session: &Session, keep: Option<&FilePath>) -> anyhow::Result<TestBed> {
        let mut settings = session.quiet_settings()?;
        let lent = matches!(settings.store, Store::Redis(_));
        let mut collection = COLLECTION.to_owned();
        let mut directory = None;
        match keep {
            Some(_) if lent => {
                let words = "--keep names a directory, but --store a Redis: leave one of them out";
                return Err(Usage(words.to_owned()).into());
            }
            Some(keep) => settings.data_dir = keep.to_owned(),
            None => {
                let made = tempfile::Builder::new().prefix("nearfield-eval-").tempdir();
                let made = made.context("making a directory")?;
                if lent {
                    // As much a name of its own as the directory's.
                    let name = made.path().file_name().unwrap_or_default();
                    collection = name.to_string_lossy().into_owned();
                }
                settings.data_dir = made.path().to_owned();
                directory = Some(made);
            }
        }
        Ok(TestBed {
            client: Arc::new(Client::open_here(&settings)?),
            collection,
            lent,
            _directory: directory,
        })
    }
}

impl Drop for TestBed {
    fn drop(&mut self) {
        let path = Path::collection(&self.collection).query("documents", Some("delete"));
        if self.lent
            && let Err(error) = self.client.send(Method::DELETE, path, None)
        {
            tracing::warn!("collection {} could not be dropped: {error}", self.collection);
        }
    }
}
