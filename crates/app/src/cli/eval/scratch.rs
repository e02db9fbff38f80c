//! The collection that a test collection is indexed into: in a temporary directory, or temporarily in Redis.

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

/// Name of the collection, where it is the only one in its directory.
const COLLECTION: &str = "eval";

/// An empty collection for an evaluation.
pub(super) struct ScratchCollection {
    pub(super) client: Arc<Client>,
    pub(super) collection: String,
    /// Whether the collection is in Redis and must be dropped at the end.
    is_in_redis: bool,
    /// Removed on drop.
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
                let words = "--keep (a directory) and --store (Redis) cannot be combined";
                return Err(UsageError(words.to_owned()).into());
            }
            Some(keep) => settings.server.service.data_dir = keep.to_owned(),
            None => {
                let temporary = tempfile::Builder::new().prefix("nearfield-eval-").tempdir();
                let temporary = temporary.context("creating a temporary directory")?;
                if is_in_redis {
                    // The directory's name is unique, so the collection's is, too.
                    let name = temporary.path().file_name().unwrap_or_default();
                    collection = name.to_string_lossy().into_owned();
                }
                settings.server.service.data_dir = temporary.path().to_owned();
                directory = Some(temporary);
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
            tracing::warn!("cannot drop the collection {}: {error}", self.collection);
        }
    }
}
