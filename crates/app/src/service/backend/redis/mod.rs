//! A Redis with the search module.

use std::{convert::Infallible, sync::Arc, time::Instant};

use super::{
    Clock, CollectionInfo, ComputedVector, Cursor, Document, Documents, Error, Field, Filter, Fingerprints,
    Found, Lacking, OnChange, Op, Query, Results, Schema, Scrolled, Stats, Stood, TextToEmbed, WriteError,
};
use crate::service::RedisStore;

/// There can be none yet: opening one is refused.
#[derive(Debug)]
pub(in crate::service) struct Redis(Infallible);

impl Redis {
    pub(super) fn open(_: &RedisStore, _: Arc<dyn Clock>, _: Arc<OnChange>) -> Result<Redis, Error> {
        Err(Error::unavailable("redis-unavailable", "a Redis cannot be the store yet: leave `store` out"))
    }

    pub(super) fn wait<T>(&self, _: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.0 {}
    }

    pub(super) fn close(&self) -> () {
        match self.0 {}
    }

    pub(super) fn seen(&self) -> Vec<CollectionInfo> {
        match self.0 {}
    }

    pub(super) fn seen_one(&self, _: &str) -> Result<CollectionInfo, Error> {
        match self.0 {}
    }

    pub(super) fn texts_to_embed(&self, _: &[u8], _: &[Field]) -> Vec<TextToEmbed> {
        match self.0 {}
    }

    pub(super) fn validate(&self, _: &Op) -> Result<(), WriteError> {
        match self.0 {}
    }

    pub(super) fn models(&self, _: &str) -> Fingerprints {
        match self.0 {}
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        match self.0 {}
    }

    pub(super) fn obstacle(&self) -> Option<String> {
        match self.0 {}
    }

    pub(super) async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
        match self.0 {}
    }

    pub(super) async fn collection(&self, _: &str) -> Result<CollectionInfo, Error> {
        match self.0 {}
    }

    pub(super) async fn put_collection(
        &self,
        _: &str,
        _: Schema,
        _: bool,
        _: Fingerprints,
    ) -> Result<(CollectionInfo, bool), Error> {
        match self.0 {}
    }

    pub(super) async fn drop_collection(&self, _: &str, _: Documents) -> Result<(), Error> {
        match self.0 {}
    }

    pub(super) async fn set_alias(&self, _: &str, _: &str) -> Result<(), Error> {
        match self.0 {}
    }

    pub(super) async fn remove_alias(&self, _: &str) -> Result<(), Error> {
        match self.0 {}
    }

    pub(super) async fn find(&self, _: Vec<Vec<u8>>) -> Result<Option<Document>, Error> {
        match self.0 {}
    }

    pub(super) async fn read(&self, _: Vec<Vec<u8>>) -> Result<Stood, Error> {
        match self.0 {}
    }

    pub(super) async fn write(&self, _: Vec<Op>) -> Result<Results, Error> {
        match self.0 {}
    }

    pub(super) async fn scroll(
        &self,
        _: &str,
        _: Option<&Filter>,
        _: Option<&Cursor>,
        _: usize,
    ) -> Result<Scrolled, Error> {
        match self.0 {}
    }

    pub(super) async fn count(&self, _: &str, _: Option<&Filter>) -> Result<u64, Error> {
        match self.0 {}
    }

    pub(super) async fn unembedded(&self, _: &str, _: Option<&Cursor>, _: usize) -> Result<Lacking, Error> {
        match self.0 {}
    }

    pub(super) async fn vectors(&self, _: &str, _: &[u8]) -> Result<Vec<ComputedVector>, Error> {
        match self.0 {}
    }

    pub(super) async fn note_models(&self, _: &str, _: Fingerprints) -> Result<(), Error> {
        match self.0 {}
    }

    pub(super) async fn stats(&self) -> Result<Stats, Error> {
        match self.0 {}
    }

    pub(in crate::service) async fn search(
        &self,
        _: &[Query<'_>],
        _: Instant,
    ) -> Result<Vec<Result<Found, Error>>, Error> {
        match self.0 {}
    }
}
