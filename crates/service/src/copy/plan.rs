//! Which collections are copied, and what they are in the target.

use engine::WriteError;

use super::{endpoint::CopyEndpoint, retry};
use crate::{
    CollectionInfo, Context, Error, ErrorKind, FieldKind, Quantization, Schema,
    backend::Fingerprints,
    catalog::{Known, vector_fields},
    collections::default_quantization,
    models::Models,
    refusal,
    sync::Arc,
};

/// Documents looked at together to learn what made their vectors.
const SAMPLE: usize = 256;

/// The collections of a copy, as they stand in source and target.
#[derive(Debug)]
pub struct CopyPlan {
    pub(super) collections: Vec<PlannedCollection>,
    pub(super) is_complete: bool,
    documents: u64,
    notes: Vec<String>,
}

/// One collection.
#[derive(Debug)]
pub(super) struct PlannedCollection {
    pub(super) from: Arc<Known>,
    pub(super) to: Arc<Known>,
    /// What the target notes its vectors to be made by, where it notes that once for all.
    pub(super) models: Option<Fingerprints>,
}

impl CopyPlan {
    /// Names of the collections, in the order they are copied in.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.collections.iter().map(|planned| planned.from.name.as_str())
    }

    /// Documents to go through, as the source counts them; one in several collections counts in each.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// What is otherwise in the target, in sentences.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The collections a document under this key falls into, with their places.
    pub(super) fn collections_for_key<'p>(
        &'p self,
        key: &'p [u8],
    ) -> impl Iterator<Item = (usize, &'p PlannedCollection)> {
        self.collections.iter().enumerate().filter(|(_, planned)| planned.from.schema.matches_key(key))
    }
}

/// Makes the collections in the target, or finds them there.
pub(super) async fn make(
    from: &CopyEndpoint,
    to: &CopyEndpoint,
    models: &Arc<Models>,
    cx: &Context,
    names: Option<&[String]>,
) -> Result<CopyPlan, Error> {
    let all = retry(async || from.backend.collections(&from.begin(cx)?).await).await?;
    let chosen = select(all, names)?;
    let in_target = retry(async || to.backend.collections(&to.begin(cx)?).await).await?;
    let mut notes = Vec::new();
    let mut schemas = Vec::with_capacity(chosen.len());
    for info in &chosen {
        let existing = in_target.iter().find(|existing| existing.name == info.name);
        let schema = target_schema(from, to, info, existing.map(|existing| &existing.schema), &mut notes);
        if let Some(difference) = existing.and_then(|existing| existing.schema.difference(&schema)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                refusal::COLLECTION_EXISTS,
                format!(
                    "collection {:?} stands in the target with another schema: there {difference}; drop it there, or copy into another store",
                    info.name
                ),
            ));
        }
        check_aliases(info, &in_target)?;
        schemas.push(schema);
    }
    let mut plan = CopyPlan { collections: Vec::new(), is_complete: names.is_none(), documents: 0, notes };
    for (info, schema) in chosen.into_iter().zip(schemas) {
        let created = plan_collection(from, to, models, cx, &info, schema).await?;
        plan.documents += info.documents;
        plan.collections.push(created);
    }
    Ok(plan)
}

/// Those that are named, each once, or all.
fn select(all: Vec<CollectionInfo>, names: Option<&[String]>) -> Result<Vec<CollectionInfo>, Error> {
    let Some(names) = names else { return Ok(all) };
    let mut chosen: Vec<CollectionInfo> = Vec::with_capacity(names.len());
    for name in names {
        let found = all.iter().find(|info| info.name == *name || info.aliases.contains(name));
        let Some(info) = found else {
            let known: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::new(
                ErrorKind::NotFound,
                "collection-not-found",
                format!("the source has no collection {name:?}; its collections: {known}"),
            ));
        };
        if !chosen.iter().any(|chosen| chosen.name == info.name) {
            chosen.push(info.clone());
        }
    }
    Ok(chosen)
}

/// The schema in the target: the same, but that vectors are held as the collection there holds
/// them, or as the target can.
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
        let held = match (existing, to.backend.quantizes(), from.backend.quantizes()) {
            (Some(existing), ..) => existing,
            (None, false, _) => Quantization::None,
            // Where it comes from it had no choice.
            (None, true, false) => default_quantization(vector),
            (None, true, true) => vector.quantization,
        };
        if held != vector.quantization {
            notes.push(format!(
                "collection {:?}: the index of field {:?} holds vectors as {}, in the source as {}; the vectors themselves are the same",
                info.name,
                field.name,
                representation(held),
                representation(vector.quantization)
            ));
            vector.quantization = held;
        }
    }
    schema
}

fn representation(quantization: Quantization) -> &'static str {
    match quantization {
        Quantization::None => "they are (quantization none)",
        Quantization::Int8 => "8-bit codes (quantization int8)",
        Quantization::Int4 => "4-bit codes (quantization int4)",
    }
}

/// Whether the names of a collection are free in the target, or lead where they do in the source.
fn check_aliases(info: &CollectionInfo, in_target: &[CollectionInfo]) -> Result<(), Error> {
    let taken = |name: &str, by: &CollectionInfo| {
        Error::new(
            ErrorKind::Conflict,
            "name-taken",
            format!(
                "{name:?}, a name of collection {:?} in the source, is one of collection {:?} in the target: remove it there first",
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
    let known = |info: &CollectionInfo| {
        Arc::new(Known { name: info.name.clone(), version: info.version, schema: info.schema.clone() })
    };
    let source = known(info);
    // A Redis notes once for all what made the vectors of a collection.
    let noted = to.backend.models(&info.name);
    let fingerprints = match &noted {
        Some(_) => fingerprints(from, models, cx, &source).await?,
        None => Vec::new(),
    };
    for (field, model) in noted.iter().flatten() {
        if fingerprints.iter().any(|(name, ours)| name == field && ours != model) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "model",
                format!(
                    "collection {:?} stands in the target with vectors that another model made for field {field:?}: drop it there, or let both stores be served by one model first",
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
    Ok(PlannedCollection { from: source, to: known(&created), models })
}

/// What the vectors of a collection in the source were made by: as it notes, or as the first vector
/// of each field says; for a field without any, the model there is.
async fn fingerprints(
    from: &CopyEndpoint,
    models: &Arc<Models>,
    cx: &Context,
    source: &Arc<Known>,
) -> Result<Fingerprints, Error> {
    if let Some(noted) = from.backend.models(&source.name) {
        return Ok(noted);
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
        for vector in page.iter().flat_map(|held| &held.vectors) {
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
        // Not installed, it is noted when a server that has it opens the target.
        if let Ok(fingerprint) = call.administer(move || Ok(models.get(&model)?.fingerprint().0)).await {
            found.push((name.to_owned(), fingerprint));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Why a document was not taken, for who reads of it in a list of many.
pub(super) fn rejection_reason(error: &WriteError) -> String {
    match error {
        WriteError::VectorsMissing { .. } => {
            "the vector of its text has not been computed yet, or does not fit: let a server on the source \
             finish, or put the document again, and copy again"
                .to_owned()
        }
        error => refusal::write(error).message,
    }
}
