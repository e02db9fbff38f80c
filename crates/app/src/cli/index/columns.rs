//! Maps columns to fields.

use std::{collections::BTreeMap, slice};

use crate::cli::error::UsageError;

/// Column names given by flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ColumnMapping {
    /// Column with the document ids [default: id]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) id: Option<String>,
    /// Column for the field title [default: title]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) title: Option<String>,
    /// Column for the field content [default: content, or else body]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) content: Option<String>,
    /// Column with comma-separated tags to filter by; repeatable
    #[arg(long = "tag", value_name = "COLUMN")]
    pub(crate) tags: Vec<String>,
    /// Column with numbers to filter by; repeatable
    #[arg(long = "numeric", value_name = "COLUMN")]
    pub(crate) numerics: Vec<String>,
}

/// The fields of the collection's schema that affect how rows are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct SchemaFields {
    /// Text fields that are embedded.
    pub(crate) embedded: Vec<String>,
    /// Whether the collection exists: any of its embedded fields is enough.
    pub(crate) exist: bool,
    /// Fields of a type other than TEXT: an empty cell means no value.
    pub(crate) typed: Vec<String>,
    /// NUMERIC fields: spaces around a value are removed.
    pub(crate) numerics: Vec<String>,
}

/// What a column becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// The document's id.
    Id,
    /// A field.
    Field {
        /// Its name.
        name: String,
        /// Whether an empty cell is a value (the empty text) or no value.
        keep_empty: bool,
        /// Whether spaces around the value are removed.
        trim: bool,
    },
    /// The document's time to live in seconds.
    TimeToLive,
    /// Nothing: the column has no name.
    Unnamed,
}

/// The name of the id column, and the columns that become fields with other names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnRenames {
    pub(crate) id: String,
    /// Field names by column name.
    fields: BTreeMap<String, Vec<String>>,
}

impl ColumnRenames {
    /// The fields that `column` becomes, besides possibly the id.
    pub(crate) fn fields<'a>(&'a self, column: &'a String) -> &'a [String] {
        match self.fields.get(column) {
            Some(names) => names,
            None if *column == self.id => &[],
            None => slice::from_ref(column),
        }
    }
}

/// Maps the columns of `header`: what each becomes, with its position. A column that has several roles occurs several
/// times.
pub(crate) fn resolve(
    header: &[String],
    mapping: &ColumnMapping,
    schema_fields: &SchemaFields,
) -> Result<Vec<(usize, Column)>, UsageError> {
    for (at, name) in header.iter().enumerate() {
        if !name.is_empty() && header[..at].contains(name) {
            return Err(UsageError(format!("the column {name:?} occurs twice: {}", describe_header(header))));
        }
    }
    let given = [&mapping.id, &mapping.title, &mapping.content].into_iter().flatten();
    for name in given.chain(&mapping.tags).chain(&mapping.numerics) {
        if !header.contains(name) {
            return Err(UsageError(format!("there is no column {name:?}: {}", describe_header(header))));
        }
    }
    let renames = renames(mapping, schema_fields, |name| find(header, name));
    if !header.contains(&renames.id) {
        return Err(UsageError(format!(
            "no column contains the document ids: {}; choose one with --id COLUMN",
            describe_header(header)
        )));
    }
    let mut columns = Vec::new();
    for (at, column) in header.iter().enumerate() {
        if column.is_empty() {
            columns.push((at, Column::Unnamed));
            continue;
        }
        if *column == renames.id {
            columns.push((at, Column::Id));
        }
        for name in renames.fields(column) {
            let becomes = if name == "ttl_s" {
                Column::TimeToLive
            } else {
                let keep_empty = !schema_fields.typed.contains(name);
                let trim = schema_fields.numerics.contains(name);
                Column::Field { name: name.clone(), keep_empty, trim }
            };
            columns.push((at, becomes));
        }
    }
    check_clashes(header, &columns)?;
    check_embedded_fields(header, &columns, schema_fields)?;
    Ok(columns)
}

/// The renames for rows in which `find` looks up a name and returns its exact spelling.
pub(crate) fn renames(
    mapping: &ColumnMapping,
    schema_fields: &SchemaFields,
    find: impl Fn(&str) -> Option<String>,
) -> ColumnRenames {
    let id = mapping.id.clone().or_else(|| find("id")).unwrap_or_else(|| "id".to_owned());
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (given, field) in [(&mapping.title, "title"), (&mapping.content, "content")] {
        let is_wanted = schema_fields.embedded.iter().any(|name| name == field);
        let found = match given {
            Some(column) => Some(column.clone()),
            None if is_wanted => find(field),
            None => None,
        };
        let found = found.or_else(|| if field == "content" && is_wanted { find("body") } else { None });
        if let Some(column) = found.filter(|column| column != field || *column == id) {
            fields.entry(column).or_default().push(field.to_owned());
        }
    }
    for column in mapping.tags.iter().chain(&mapping.numerics) {
        // Without this, a column with another role would not become the field of its own name.
        if *column == id || fields.contains_key(column) {
            let names = fields.entry(column.clone()).or_default();
            if !names.contains(column) {
                names.push(column.clone());
            }
        }
    }
    ColumnRenames { id, fields }
}

/// The column called `name`, preferring the exact case.
fn find(header: &[String], name: &str) -> Option<String> {
    let exact = header.iter().find(|column| *column == name);
    exact.or_else(|| header.iter().find(|column| column.eq_ignore_ascii_case(name))).cloned()
}

fn check_clashes(header: &[String], columns: &[(usize, Column)]) -> Result<(), UsageError> {
    let mut columns_by_field: BTreeMap<&str, &str> = BTreeMap::new();
    for (at, becomes) in columns {
        let Column::Field { name, .. } = becomes else { continue };
        let column = &header[*at];
        if name == "id" {
            return Err(UsageError(format!(
                "the column {column:?} cannot become a field because the name {name:?} is reserved; rename the column"
            )));
        }
        if let Some(first) = columns_by_field.insert(name, column) {
            return Err(UsageError(format!(
                "the columns {first:?} and {column:?} would both become the field {name:?}"
            )));
        }
    }
    Ok(())
}

/// Rejects a header without a column to embed: its documents could not be found.
fn check_embedded_fields(
    header: &[String],
    columns: &[(usize, Column)],
    schema_fields: &SchemaFields,
) -> Result<(), UsageError> {
    let has = |field: &str| {
        columns.iter().any(|(_, column)| matches!(column, Column::Field { name, .. } if name == field))
    };
    let content = schema_fields.embedded.iter().any(|field| field == "content");
    let missing = if content && !schema_fields.exist {
        !has("content")
    } else {
        !schema_fields.embedded.iter().any(|field| has(field))
    };
    if schema_fields.embedded.is_empty() || !missing {
        return Ok(());
    }
    let hint = if content {
        "choose the column with the text with --content COLUMN (and --title COLUMN, --id COLUMN)".to_owned()
    } else {
        format!("the collection embeds {}", schema_fields.embedded.join(", "))
    };
    Err(UsageError(format!("no column contains the text to search: {}; {hint}", describe_header(header))))
}

fn describe_header(header: &[String]) -> String {
    if header.is_empty() {
        return "the header is empty".to_owned();
    }
    format!("the columns are {}", header.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn article() -> SchemaFields {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SchemaFields {
            embedded: names(&["title", "content"]),
            typed: names(&["category", "year"]),
            numerics: names(&["year"]),
            exist: false,
        }
    }

    fn fields(header: &[&str], mapping: &ColumnMapping) -> Result<Vec<String>, String> {
        let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
        let columns = resolve(&header, mapping, &article()).map_err(|error| error.to_string())?;
        Ok(columns
            .into_iter()
            .map(|(_, column)| match column {
                Column::Id => "=id".to_owned(),
                Column::TimeToLive => "=ttl_s".to_owned(),
                Column::Unnamed => "-".to_owned(),
                Column::Field { name, keep_empty, trim } => {
                    format!("{name}{}{}", if keep_empty { "" } else { "?" }, if trim { "~" } else { "" })
                }
            })
            .collect())
    }

    fn some(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn maps_common_headers_without_flags() {
        let none = ColumnMapping::default();
        assert_eq!(fields(&["id", "title", "content"], &none).unwrap(), ["=id", "title", "content"]);
        assert_eq!(fields(&["id", "title", "body"], &none).unwrap(), ["=id", "title", "content"]);
        assert_eq!(fields(&["ID", "Title", "Body"], &none).unwrap(), ["=id", "title", "content"]);
        assert_eq!(fields(&["id", "content", "body"], &none).unwrap(), ["=id", "content", "body"]);
        assert_eq!(
            fields(&["id", "content", "category", "year", "url", ""], &none).unwrap(),
            ["=id", "content", "category?", "year?~", "url", "-"]
        );
    }

    #[test]
    fn maps_columns_named_by_flags() {
        let mapping = ColumnMapping {
            id: some("key"),
            title: some("name"),
            content: some("text"),
            ..ColumnMapping::default()
        };
        assert_eq!(
            fields(&["text", "name", "key", "body"], &mapping).unwrap(),
            ["content", "title", "=id", "body"]
        );
    }

    #[test]
    fn one_column_can_have_several_roles() {
        let mapping = |id, title, content| ColumnMapping {
            id: some(id),
            title: some(title),
            content: some(content),
            ..ColumnMapping::default()
        };
        let header = ["question", "answer"];
        let question_is_id = mapping("question", "question", "answer");
        assert_eq!(fields(&header, &question_is_id).unwrap(), ["=id", "title", "content"]);
        let all_in_one = mapping("question", "question", "question");
        assert_eq!(fields(&header, &all_in_one).unwrap(), ["=id", "title", "content", "answer"]);
        let id_is_title = ColumnMapping { id: some("title"), ..ColumnMapping::default() };
        assert_eq!(fields(&["title", "content"], &id_is_title).unwrap(), ["=id", "title", "content"]);
        let tagged = ColumnMapping { tags: vec!["category".into()], ..mapping("key", "category", "text") };
        assert_eq!(
            fields(&["key", "category", "text"], &tagged).unwrap(),
            ["=id", "title", "category?", "content"]
        );
        let id_as_tag = ColumnMapping { tags: vec!["id".into()], ..ColumnMapping::default() };
        assert!(fields(&["id", "content"], &id_as_tag).unwrap_err().contains("reserved"));
    }

    #[test]
    fn a_new_collection_needs_content_and_another_any_embedded_field() {
        let resolve = |exist, header: &[&str]| {
            let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
            resolve(&header, &ColumnMapping::default(), &SchemaFields { exist, ..article() })
        };
        assert!(resolve(false, &["id", "title"]).unwrap_err().0.contains("--content"));
        assert_eq!(resolve(true, &["id", "title"]).unwrap().len(), 2);
        assert!(resolve(true, &["id", "year"]).unwrap_err().0.contains("--content"));
    }

    #[test]
    fn header_errors_list_the_columns() {
        let none = ColumnMapping::default();
        let error = |header: &[&str], mapping: &ColumnMapping| fields(header, mapping).unwrap_err();
        let text = error(&["key", "text"], &none);
        assert!(text.contains("--id") && text.contains("key, text"), "{text}");
        let text = error(&["id", "text"], &none);
        assert!(text.contains("--content") && text.contains("id, text"), "{text}");
        assert!(error(&["id", "content", "content"], &none).contains("twice"));
        let mapping = ColumnMapping { tags: vec!["color".into()], ..ColumnMapping::default() };
        assert!(error(&["id", "content"], &mapping).contains("no column \"color\""));
        let mapping = ColumnMapping { title: some("name"), ..ColumnMapping::default() };
        assert!(
            error(&["id", "title", "name", "content"], &mapping).contains("both become the field \"title\"")
        );
        let mapping = ColumnMapping { id: some("key"), ..ColumnMapping::default() };
        assert!(error(&["id", "key", "content"], &mapping).contains("rename"));
        assert!(error(&[], &none).contains("empty"));
    }
}
