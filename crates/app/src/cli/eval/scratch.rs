//! Where a test collection's documents are indexed: a directory, or a collection is_in_redis by a Redis.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use axum::http::Method;
use tempfile::TempDir;

use super::super::{
    client::{ApiPath, Client},
    error::UsageError,
    session::Session,
};
use service::Store;

/// The collection in a directory that holds nothing else.
const COLLECTION: &str = "eval";

/// An empty collection to measure in.
pub(super) struct ScratchCollection {
    pub(super) client: Arc<Client>,
    pub(super) collection: String,
    /// Whether the collection has to be dropped at the end.
    is_in_redis: bool,
    /// Goes at the end.
    _directory: Option<TempDir>,
}

impl ScratchCollection {
    pub(super) fn create(session: &Session, keep: Option<&Path>) -> anyhow::Result<ScratchCollection> {
        let mut settings = session.command_settings()?;
        let is_in_redis = matches!(settings.server.service.store, Store::Redis(_));
        let mut collection = COLLECTION.to_owned();
        let mut directory = None;
        match keep {
            Some(_) if is_in_redis => {
                let words = "--keep names a directory, but --store a Redis: leave one of them out";
                return Err(UsageError(words.to_owned()).into());
            }
            Some(keep) => settings.server.service.data_dir = keep.to_owned(),
            None => {
                let made = tempfile::Builder::new().prefix("nearfield-eval-").tempdir();
                let made = made.context("making a directory")?;
                if is_in_redis {
                    // As much a name of its own as the directory's.
                    let name = made.path().file_name().unwrap_or_default();
                    collection = name.to_string_lossy().into_owned();
                }
                settings.server.service.data_dir = made.path().to_owned();
                directory = Some(made);
            }
        }
        Ok(ScratchCollection {
            client: Arc::new(Client::open_in_process(&settings)?),
            collection,
            is_in_redis,
            _directory: directory,
        })
    }
}

impl Drop for ScratchCollection {
    fn drop(&mut self) {
        let path = ApiPath::collection(&self.collection).query("documents", Some("delete"));
        if self.is_in_redis
            && let Err(error) = self.client.send(Method::DELETE, path, None)
        {
            tracing::warn!("collection {} could not be dropped: {error}", self.collection);
        }
    }
}
