//! Imports point down: between the crates of the workspace, and between the modules of this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The modules of `service`, from the bottom up. A module may import those on lines above its own.
const MODULES: &[&[&str]] = &[
    &["context", "documents", "error", "key_locks", "limits", "pool", "sync", "timing"],
    &["config", "error_mapping", "meter", "search_request"],
    &["catalog", "workers"],
    &["models"],
    &["call"],
    &["backend"],
    &["shared"],
    &["collections", "search", "write"],
    &["backup", "copy", "data_dir", "diagnostics", "read"],
    &["keyspace"],
    &["fuzzing"],
];

/// The crates of the workspace that each crate may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("embed", &["kernels"]),
    ("index", &["kernels"]),
    ("store", &[]),
    ("engine", &["index", "kernels", "store"]),
    ("service", &["embed", "engine", "kernels"]),
    ("server", &["service"]),
    ("app", &["server", "service"]),
    ("testing", &[]),
];

/// Crates that must stay out of the layers below the service, which are synchronous and know no protocol.
const NOT_BELOW_SERVICE: [&str; 6] = ["axum", "hyper", "redis", "reqwest", "tokio", "ureq"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn level(module: &str) -> Option<usize> {
    MODULES.iter().position(|modules| modules.contains(&module))
}

/// The Rust files below a directory that belong to a build without tests.
fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_unstable();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "tests" {
                sources(&path, files);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "fuzzing.rs" {
            files.push(path);
        }
    }
}

/// The source without comments and without its `mod tests`.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names after every `prefix::`, those in braces included.
fn heads<'c>(code: &'c str, prefix: &str) -> Vec<&'c str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name = |text: &'c str| &text[..text.find(|c| !is_name(c)).unwrap_or(text.len())];
    let mut heads = Vec::new();
    for (start, found) in code.match_indices(&format!("{prefix}::")) {
        if code[..start].ends_with(|c| is_name(c) || c == '$') {
            continue;
        }
        let rest = &code[start + found.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            heads.push(name(rest));
            continue;
        };
        let (mut depth, mut item) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    heads.push(name(list[item..at].trim_start()));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    heads.push(name(list[item..at].trim_start()));
                    item = at + 1;
                }
                _ => {}
            }
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// The module behind each name that the crate re-exports at its root.
fn exports(root: &str) -> BTreeMap<&str, &str> {
    let mut exports = BTreeMap::new();
    for statement in root.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap();
        let Some((module, names)) = statement.split_once("::") else { continue };
        if level(module).is_some() {
            let names = names.trim_matches(['{', '}', '\n', ' ']).split(',').map(str::trim);
            exports.extend(names.filter(|name| !name.is_empty()).map(|name| (name, module)));
        }
    }
    exports
}

#[test]
fn no_module_imports_one_above_it() {
    let src = crates().join("service/src");
    let root = code(&src.join("lib.rs"));
    let exports = exports(&root);
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = BTreeSet::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        let module = path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = level(module).unwrap_or_else(|| panic!("module {module} is missing in MODULES"));
        let code = code(&file);
        for name in heads(&code, "crate") {
            let imported = exports.get(name).copied().unwrap_or(name);
            if imported != module && level(imported).is_some_and(|level| level >= own) {
                wrong.insert(format!("{}: {name} is in {imported}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", Vec::from_iter(wrong).join("\n"));
}

#[test]
fn no_crate_depends_on_one_above_it() {
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(crates().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("\n[dev-dependencies]").next().unwrap();
        let listed = |dependency: &str| {
            dependencies.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(dependency))
        };
        for (other, _) in CRATES.iter().filter(|(other, _)| other != name && !allowed.contains(other)) {
            assert!(!listed(other), "{name} must not depend on {other}");
        }
        if !["service", "server", "app"].contains(name) {
            for other in NOT_BELOW_SERVICE {
                assert!(!listed(other), "{name} must not depend on {other}");
            }
        }
    }
}

#[test]
fn only_kernels_contains_unsafe_code() {
    let mut files = Vec::new();
    for (name, _) in CRATES.iter().filter(|(name, _)| *name != "kernels") {
        sources(&crates().join(name).join("src"), &mut files);
    }
    let allows = |file: &&PathBuf| code(file).contains("allow(unsafe_code");
    let found: Vec<_> = files.iter().filter(allows).collect();
    assert!(found.is_empty(), "unsafe code is allowed in {found:?}");
}
