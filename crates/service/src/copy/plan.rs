//! Planning a copy: which collections are copied, and how they are defined in the target.

use engine::WriteError;

use super::{endpoint::CopyEndpoint, retry};
use crate::{
    CollectionInfo, Context, Error, ErrorKind, FieldKind, Quantization, Schema,
    backend::Fingerprints,
    catalog::{CollectionHandle, vector_fields},
    collections::default_quantization,
    error_mapping,
    models::Models,
    sync::Arc,
};

/// Documents read per page to find the models of their vectors.
const SAMPLE: usize = 256;

/// The collections to copy, in source and target.
#[derive(Debug)]
pub struct CopyPlan {
    pub(super) collections: Vec<PlannedCollection>,
    pub(super) is_complete: bool,
    documents: u64,
    notes: Vec<String>,
}

/// One collection to copy.
#[derive(Debug)]
pub(super) struct PlannedCollection {
    pub(super) from: Arc<CollectionHandle>,
    pub(super) to: Arc<CollectionHandle>,
    /// The models of its vectors, if the target stores them per collection.
    pub(super) models: Option<Fingerprints>,
}

impl CopyPlan {
    /// The names of the collections, in copy order.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.collections.iter().map(|planned| planned.from.name.as_str())
    }

    /// The number of documents to process, as the source counts them; a document in several collections
    /// counts in each.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Differences in the target that do not prevent the copy, as sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The planned collections that contain a document with this key, with their positions.
    pub(super) fn collections_for_key<'p>(
        &'p self,
        key: &'p [u8],
    ) -> impl Iterator<Item = (usize, &'p PlannedCollection)> {
        self.collections.iter().enumerate().filter(|(_, planned)| planned.from.schema.matches_key(key))
    }
}

/// Creates the collections in the target, or adopts existing ones.
pub(super) async fn create(
    from: &CopyEndpoint,
    to: &CopyEndpoint,
    models: &Arc<Models>,
    cx: &Context,
    names: Option<&[String]>,
) -> Result<CopyPlan, Error> {
    let all = retry(async || from.backend.collections(&from.begin(cx)?).await).await?;
    let selected = select(all, names)?;
    let in_target = retry(async || to.backend.collections(&to.begin(cx)?).await).await?;
    let mut notes = Vec::new();
    let mut schemas = Vec::with_capacity(selected.len());
    for info in &selected {
        let existing = in_target.iter().find(|existing| existing.name == info.name);
        let schema = target_schema(from, to, info, existing.map(|existing| &existing.schema), &mut notes);
        if let Some(difference) = existing.and_then(|existing| existing.schema.difference(&schema)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                error_mapping::COLLECTION_EXISTS,
                format!(
                    "collection {:?} exists in the target with another schema: {difference}; drop it there, or copy to another store",
                    info.name
                ),
            ));
        }
        check_aliases(info, &in_target)?;
        schemas.push(schema);
    }
    let mut plan = CopyPlan { collections: Vec::new(), is_complete: names.is_none(), documents: 0, notes };
    for (info, schema) in selected.into_iter().zip(schemas) {
        let created = plan_collection(from, to, models, cx, &info, schema).await?;
        plan.documents += info.documents;
        plan.collections.push(created);
    }
    Ok(plan)
}

/// The named collections, each once; all without names.
fn select(all: Vec<CollectionInfo>, names: Option<&[String]>) -> Result<Vec<CollectionInfo>, Error> {
    let Some(names) = names else { return Ok(all) };
    let mut selected: Vec<CollectionInfo> = Vec::with_capacity(names.len());
    for name in names {
        let found = all.iter().find(|info| info.name == *name || info.aliases.contains(name));
        let Some(info) = found else {
            let existing: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
            let existing = if existing.is_empty() { "none".to_owned() } else { existing.join(", ") };
            return Err(Error::new(
                ErrorKind::NotFound,
                "collection-not-found",
                format!("the source has no collection {name:?}; its collections: {existing}"),
            ));
        };
        if !selected.iter().any(|selected| selected.name == info.name) {
            selected.push(info.clone());
        }
    }
    Ok(selected)
}

/// The schema in the target: the same, except that `quantization` is that of the existing collection,
/// or what the target supports.
fn target_schema(
    from: &CopyEndpoint,
    to: &CopyEndpoint,
    info: &CollectionInfo,
    existing: Option<&Schema>,
    notes: &mut Vec<String>,
) -> Schema {
    let mut schema = info.schema.clone();
    for field in &mut schema.fields {
        let FieldKind::Vector(vector) = &mut field.kind else { continue };
        let existing = match existing.and_then(|existing| existing.field(&field.name)) {
            Some(FieldKind::Vector(existing)) => Some(existing.quantization),
            _ => None,
        };
        let quantization = match (existing, to.backend.is_embedded(), from.backend.is_embedded()) {
            (Some(existing), ..) => existing,
            (None, false, _) => Quantization::None,
            // The source does not support quantization, so its value was not selected.
            (None, true, false) => default_quantization(vector),
            (None, true, true) => vector.quantization,
        };
        if quantization != vector.quantization {
            notes.push(format!(
                "collection {:?}: the index of field {:?} stores vectors {}, in the source {}; the vectors themselves are the same",
                info.name,
                field.name,
                representation(quantization),
                representation(vector.quantization)
            ));
            vector.quantization = quantization;
        }
    }
    schema
}

fn representation(quantization: Quantization) -> &'static str {
    match quantization {
        Quantization::None => "unchanged (quantization none)",
        Quantization::Int8 => "as 8-bit codes (quantization int8)",
        Quantization::Int4 => "as 4-bit codes (quantization int4)",
    }
}

/// Checks that the names of a collection are unused in the target or refer to the same collection.
fn check_aliases(info: &CollectionInfo, in_target: &[CollectionInfo]) -> Result<(), Error> {
    let taken = |name: &str, by: &CollectionInfo| {
        Error::new(
            ErrorKind::Conflict,
            "name-taken",
            format!(
                "name {name:?} of collection {:?} refers to collection {:?} in the target: remove it there first",
                info.name, by.name
            ),
        )
    };
    for other in in_target.iter().filter(|other| other.name != info.name) {
        let names = std::iter::once(&info.name).chain(&info.aliases);
        for name in names {
            if other.name == *name || other.aliases.contains(name) {
                return Err(taken(name, other));
            }
        }
    }
    Ok(())
}

async fn plan_collection(
    from: &CopyEndpoint,
    to: &CopyEndpoint,
    models: &Arc<Models>,
    cx: &Context,
    info: &CollectionInfo,
    schema: Schema,
) -> Result<PlannedCollection, Error> {
    let handle = |info: &CollectionInfo| {
        Arc::new(CollectionHandle {
            name: info.name.clone(),
            version: info.version,
            schema: info.schema.clone(),
        })
    };
    let source = handle(info);
    // Redis stores the models of a collection's vectors once per collection.
    let stored = to.backend.models(&info.name);
    let fingerprints = match &stored {
        Some(_) => fingerprints(from, models, cx, &source).await?,
        None => Vec::new(),
    };
    for (field, model) in stored.iter().flatten() {
        if fingerprints.iter().any(|(name, ours)| name == field && ours != model) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "model",
                format!(
                    "the vectors of field {field:?} of collection {:?} in the target were computed by another model: drop the collection there, or have both stores re-embedded by the same model first",
                    info.name
                ),
            ));
        }
    }
    let call = to.begin(cx)?;
    let (created, _) = to.backend.put_collection(&call, &info.name, schema, false, fingerprints).await?;
    for alias in &info.aliases {
        if !created.aliases.contains(alias) {
            to.backend.set_alias(&call, alias, &info.name).await?;
        }
    }
    let models = to.backend.models(&info.name);
    Ok(PlannedCollection { from: source, to: handle(&created), models })
}

/// The models of a collection's vectors in the source: as stored per collection, or of the first vector
/// of each field; for a field without vectors, the installed model.
async fn fingerprints(
    from: &CopyEndpoint,
    models: &Arc<Models>,
    cx: &Context,
    source: &Arc<CollectionHandle>,
) -> Result<Fingerprints, Error> {
    if let Some(stored) = from.backend.models(&source.name) {
        return Ok(stored);
    }
    let computed: Vec<(&str, &str)> = vector_fields(&source.schema)
        .filter_map(|(name, vector)| Some((name, vector.embed.as_ref()?.model.as_str())))
        .collect();
    let mut found = Fingerprints::new();
    let mut after = None;
    while found.len() < computed.len() {
        let (page, next) = retry(async || {
            let call = from.begin(cx)?;
            from.page(&call, source, std::iter::once(source), after.clone(), SAMPLE).await
        })
        .await?;
        for vector in page.iter().flat_map(|document| &document.vectors) {
            let name = &source.schema.fields[usize::from(vector.field)].name;
            if !found.iter().any(|(field, _)| field == name) {
                found.push((name.clone(), vector.model));
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    let call = from.begin(cx)?;
    for (name, model) in computed {
        if found.iter().any(|(field, _)| field == name) {
            continue;
        }
        let (models, model) = (models.clone(), model.to_owned());
        // If the model is not installed, the server that opens the target records its fingerprint.
        if let Ok(fingerprint) = call.administer(move || Ok(models.get(&model)?.fingerprint().0)).await {
            found.push((name.to_owned(), fingerprint));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Why a document was rejected, as an entry in a list of many.
pub(super) fn rejection_reason(error: &WriteError) -> String {
    match error {
        WriteError::VectorsMissing { .. } => {
            "the vector of its text has not been computed yet or does not fit: wait until the source has \
             computed it, or put the document again, then repeat the copy"
                .to_owned()
        }
        error => error_mapping::write(error).message,
    }
}
