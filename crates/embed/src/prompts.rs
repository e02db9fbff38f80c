//! Prompts that a model expects before a text.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{
    LoadError,
    settings::{invalid_setting, read_json_if_present},
};

/// Maximum length of a prompt, in bytes. A prompt reduces the number of tokens available for every text.
const PROMPT_BYTES_MAX: usize = 1024;

/// Model families whose early files omit the prompts they were trained with: prefix of the model's
/// name, query prompt, document prompt.
const FAMILIES: [(&str, &str, &str); 5] = [
    ("e5-", "query: ", "passage: "),
    ("multilingual-e5-", "query: ", "passage: "),
    ("bge-small-en", "Represent this sentence for searching relevant passages: ", ""),
    ("bge-base-en", "Represent this sentence for searching relevant passages: ", ""),
    ("bge-large-en", "Represent this sentence for searching relevant passages: ", ""),
];

/// The prompts before queries and documents. Most models have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompts {
    pub(crate) query: String,
    pub(crate) document: String,
}

#[derive(Default, Deserialize)]
struct PromptConfig {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl Prompts {
    /// Reads `config_sentence_transformers.json` in the model directory `dir`. As in
    /// sentence-transformers, queries use the prompt `query`, documents use `document`, `passage` or
    /// `corpus`, and both fall back to the default prompt. If the file specifies no prompts, those of
    /// the model's family apply.
    pub(crate) fn read(dir: &Path) -> Result<Prompts, LoadError> {
        let path = dir.join("config_sentence_transformers.json");
        let config: PromptConfig = read_json_if_present(&path)?.unwrap_or_default();
        for prompt in config.prompts.values() {
            if prompt.len() > PROMPT_BYTES_MAX {
                let found = format!("a prompt of {} bytes", prompt.len());
                return Err(invalid_setting(
                    &path,
                    "prompts",
                    found,
                    format!("at most {PROMPT_BYTES_MAX} bytes are supported"),
                ));
            }
        }
        let default = match &config.default_prompt_name {
            None => "",
            Some(name) => config.prompts.get(name).ok_or_else(|| {
                invalid_setting(&path, "default_prompt_name", name, "it must name a prompt of this file")
            })?,
        };
        let named = |names: &[&str]| -> String {
            names.iter().find_map(|name| config.prompts.get(*name)).map_or(default, String::as_str).into()
        };
        let prompts =
            Prompts { query: named(&["query"]), document: named(&["document", "passage", "corpus"]) };
        if prompts == Prompts::default() {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            return Ok(Prompts::for_family(&name));
        }
        Ok(prompts)
    }

    fn for_family(name: &str) -> Prompts {
        let family = FAMILIES.iter().find(|(prefix, ..)| name.starts_with(prefix));
        family.map_or_else(Prompts::default, |(_, query, document)| Prompts {
            query: (*query).to_owned(),
            document: (*document).to_owned(),
        })
    }
}
