//! The table of settings in `docs/operations.md`.

use std::path::PathBuf;

use super::{
    builder::SettingsBuilder,
    setting::{DefaultValue, Flag, Kind, Setting},
    table::SETTINGS,
};

const BEGIN: &str = "<!-- settings: generated from crates/app/src/config/table.rs by `WRITE_DOCS=1 cargo test -p nearfield --lib settings_table` -->\n";
const END: &str = "<!-- end of settings -->\n";

fn table() -> String {
    let rows = SETTINGS.iter().map(row);
    let head = "| key | flag | default | allowed | meaning |\n|---|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

fn row(setting: &Setting) -> String {
    let flag = match setting.flag {
        Flag::None => String::new(),
        Flag::All(_) | Flag::Serve(_) => format!("`--{}`", setting.long_flag()),
    };
    let default = match setting.default {
        DefaultValue::None => "none".to_owned(),
        DefaultValue::Description(text) => text.to_owned(),
        DefaultValue::Value(get) => {
            let value = get(&SettingsBuilder::new("".into()));
            if matches!(setting.kind, Kind::Number { .. }) {
                with_separators(&value)
            } else {
                format!("`{value}`")
            }
        }
    };
    let allowed = match &setting.kind {
        Kind::Number { range, .. } => {
            let [min, max] = [range.start(), range.end()].map(|number| with_separators(&number.to_string()));
            format!("{min} to {max}")
        }
        Kind::Switch { .. } => "`true`, `false`".to_owned(),
        Kind::Path { .. } => "path".to_owned(),
        Kind::Choice { names, .. } => {
            names().into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Text { allowed, .. } | Kind::Tables { allowed, .. } => (*allowed).to_owned(),
        Kind::List { allowed, .. } => format!("list: {allowed}"),
    };
    let cell = |text: &str| text.replace('|', "\\|").replace('*', "\\*");
    format!("| `{}` | {flag} | {default} | {} | {} |\n", setting.key, cell(&allowed), cell(setting.help))
}

/// Digits with a comma after each group of three.
fn with_separators(digits: &str) -> String {
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    groups.into_iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(",")
}

#[test]
fn settings_table_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("docs/operations.md marks where the table begins");
    let (found, after) = rest.split_once(END).expect("docs/operations.md marks where the table ends");
    let expected = format!("\n{}\n", table());
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        found, expected,
        "the table of settings in docs/operations.md is outdated: run WRITE_DOCS=1 cargo test -p nearfield --lib settings_table"
    );
}
