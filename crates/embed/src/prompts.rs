//! What a model wants to read before a text.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{
    LoadError,
    settings::{read_json_if_present, setting},
};

/// Bytes of a prompt. It takes tokens from every text.
const PROMPT_BYTES_MAX: usize = 1024;

/// Families whose early files do not name the prompts their authors trained them with, by the
/// beginning of a model's name: for queries and for documents.
const FAMILIES: [(&str, &str, &str); 5] = [
    ("e5-", "query: ", "passage: "),
    ("multilingual-e5-", "query: ", "passage: "),
    ("bge-small-en", "Represent this sentence for searching relevant passages: ", ""),
    ("bge-base-en", "Represent this sentence for searching relevant passages: ", ""),
    ("bge-large-en", "Represent this sentence for searching relevant passages: ", ""),
];

/// Texts put before each text, by what it is; mostly none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompts {
    pub(crate) query: String,
    pub(crate) document: String,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl Prompts {
    /// Reads `config_sentence_transformers.json` of the model directory `dir`. As in
    /// sentence-transformers, a query takes the prompt `query`, a document `document`, `passage`
    /// or `corpus`, either else the default one. Where the file names none, the model's family counts.
    pub(crate) fn read(dir: &Path) -> Result<Prompts, LoadError> {
        let path = dir.join("config_sentence_transformers.json");
        let config: Config = read_json_if_present(&path)?.unwrap_or_default();
        for prompt in config.prompts.values() {
            if prompt.len() > PROMPT_BYTES_MAX {
                let found = format!("a prompt of {} bytes", prompt.len());
                return Err(setting(&path, "prompts", found, format!("at most {PROMPT_BYTES_MAX} are read")));
            }
        }
        let default = match &config.default_prompt_name {
            None => "",
            Some(name) => config.prompts.get(name).ok_or_else(|| {
                setting(&path, "default_prompt_name", name, "it must be one of the prompts of this file")
            })?,
        };
        let named = |names: &[&str]| -> String {
            names.iter().find_map(|name| config.prompts.get(*name)).map_or(default, String::as_str).into()
        };
        let prompts =
            Prompts { query: named(&["query"]), document: named(&["document", "passage", "corpus"]) };
        if prompts == Prompts::default() {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            return Ok(Prompts::of_family(&name));
        }
        Ok(prompts)
    }

    fn of_family(name: &str) -> Prompts {
        let family = FAMILIES.iter().find(|(beginning, ..)| name.starts_with(beginning));
        family.map_or_else(Prompts::default, |(_, query, document)| Prompts {
            query: (*query).to_owned(),
            document: (*document).to_owned(),
        })
    }
}
