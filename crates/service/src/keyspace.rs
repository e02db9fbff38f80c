//! Documents by key, whether or not a collection includes them. What is written here is embedded for every collection
//! that includes the key, as if it were written through the collection.

use engine::{CollectionVersion, Expected};

use crate::{
    Context, Document, Error, ErrorKind, Fields, KeyPage, Patch, PutResult, Schema, Service,
    backend::Op,
    catalog::CollectionHandle,
    read::check_page,
    sync::Arc,
    write::{Change, fields},
};

impl Service {
    /// The document under a key, with all its fields; `None` if there is none.
    pub async fn get_key(&self, cx: &Context, key: &str) -> Result<Option<Document>, Error> {
        let call = self.shared().begin(cx)?;
        fields::check_id(key)?;
        self.shared().backend.find(&call, vec![key.as_bytes().to_vec()]).await
    }

    /// Sets fields of the document under a key, and creates it if there is none; the other fields and the expiry stay.
    pub async fn put_key(&self, cx: &Context, key: &str, set: Fields) -> Result<PutResult, Error> {
        let patch = Patch { id: key.to_owned(), set, remove: Vec::new(), ttl: None, expected: Expected::Any };
        self.change_key(cx, Change::Upsert(patch)).await
    }

    /// Deletes the documents under these keys, at most [`DOCUMENTS_MAX`](crate::limits::DOCUMENTS_MAX), and returns how
    /// many there were.
    pub async fn delete_keys(&self, cx: &Context, keys: &[String]) -> Result<u64, Error> {
        let call = self.shared().begin(cx)?;
        fields::check_documents(keys.len())?;
        keys.iter().try_for_each(|key| fields::check_id(key))?;
        let delete = |key: &String| Op::Delete { key: key.as_bytes().to_vec(), expected: Expected::Any };
        self.shared().delete(&call, keys.iter().map(delete).collect()).await
    }

    /// Sets the time to live of the document under a key; `None` removes it, so that the default of the collections
    /// that include the key applies, if they have one. `false` if there is no such document.
    pub async fn expire_key(
        &self,
        cx: &Context,
        key: &str,
        ttl: Option<std::time::Duration>,
    ) -> Result<bool, Error> {
        let patch = Patch {
            id: key.to_owned(),
            set: Vec::new(),
            remove: Vec::new(),
            ttl: Some(ttl),
            expected: Expected::Any,
        };
        match self.change_key(cx, Change::Patch(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keys of documents that start with `prefix`, from where an earlier page ended. The embedded store returns them in
    /// ascending order; a Redis in none, and a page may have fewer than `limit` before the end, or some keys again.
    pub async fn scan(
        &self,
        cx: &Context,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, Error> {
        let call = self.shared().begin(cx)?;
        check_page(limit)?;
        let after = after.map(str::to_owned);
        self.shared().backend.keys(&call, prefix.as_bytes().to_vec(), after, limit).await
    }

    async fn change_key(&self, cx: &Context, change: Change) -> Result<PutResult, Error> {
        let call = self.shared().begin(cx)?;
        let mut results = self.write(&call, &keyspace(), vec![change]).await?;
        results.pop().expect("one change, one result")
    }
}

/// All documents, with the key as the id and without a schema.
fn keyspace() -> Arc<CollectionHandle> {
    Arc::new(CollectionHandle {
        name: "(all keys)".to_owned(),
        version: CollectionVersion { id: 0, version: 0 },
        schema: Schema { prefixes: vec![Vec::new()], fields: Vec::new(), ttl: None },
    })
}
