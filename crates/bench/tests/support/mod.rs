//! Runs `nearfield-bench` on small data derived from the bundled knowledge base.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Words per document of the derived corpus.
const WORDS: usize = 20;

/// A data directory, a cache directory and the model.
pub(crate) struct Bench {
    data: TempDir,
    cache: TempDir,
    model: PathBuf,
}

impl Bench {
    /// Prepares the directories. `None`, reported on standard error, without the model or the `nearfield` binary;
    /// with `NEARFIELD_REQUIRE_MODEL=1` that is a failure.
    pub(crate) fn new() -> Option<Bench> {
        let made = repository().join("target/nearfield-home");
        let home = std::env::var_os("NEARFIELD_HOME").map_or(made, PathBuf::from);
        let model = home.join("models/all-MiniLM-L6-v2");
        if !model.is_dir() {
            return skip("MODEL", &format!("{} does not exist: run `make model`", model.display()));
        }
        let server = Path::new(env!("CARGO_BIN_EXE_nearfield-bench")).with_file_name("nearfield");
        if !server.exists() {
            return skip(
                "MODEL",
                &format!("{} does not exist: run `cargo build -p nearfield`", server.display()),
            );
        }
        let directory = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bench = Bench { data: directory(), cache: directory(), model };
        bench.write_data();
        Some(bench)
    }

    /// The same for benchmarks that need Redis Stack. `None`, reported on standard error, if it cannot be installed;
    /// with `NEARFIELD_REQUIRE_REDIS=1` that is a failure.
    pub(crate) fn with_redis() -> Option<Bench> {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        match INSTALLED.get_or_init(install_redis) {
            Ok(()) => Bench::new(),
            Err(error) => skip("REDIS", error),
        }
    }

    /// The corpus of packages is the text of the bundled knowledge base in pieces of [`WORDS`] words, and SciFact is
    /// its evaluation set, which has the same layout, with shortened articles.
    fn write_data(&self) {
        let demo = repository().join("demo/eval");
        let scifact = self.data.path().join("eval/scifact");
        let corpora = self.data.path().join("corpora");
        fs::create_dir_all(&scifact).unwrap();
        fs::create_dir_all(&corpora).unwrap();
        for name in ["queries.jsonl", "qrels.tsv"] {
            fs::copy(demo.join(name), scifact.join(name)).unwrap();
        }
        let articles = fs::read_to_string(demo.join("corpus.jsonl")).unwrap();
        let beginning = |line: &str| {
            let mut article: Value = serde_json::from_str(line).unwrap();
            let words = article["text"].as_str().unwrap().split_whitespace().take(WORDS).collect::<Vec<_>>();
            article["text"] = words.join(" ").into();
            format!("{article}\n")
        };
        fs::write(scifact.join("corpus.jsonl"), articles.lines().map(beginning).collect::<String>()).unwrap();
        let texts = |name: &str| -> Vec<String> {
            let lines = fs::read_to_string(demo.join(name)).unwrap();
            let text = |line: &str| {
                let value: Value = serde_json::from_str(line).unwrap();
                value["text"].as_str().unwrap().to_owned()
            };
            lines.lines().map(text).collect()
        };
        fs::write(corpora.join("packages_queries.txt"), texts("queries.jsonl").join("\n")).unwrap();
        let articles = texts("corpus.jsonl").join(" ");
        let words: Vec<&str> = articles.split_whitespace().collect();
        let file = File::create(corpora.join("packages_250k.jsonl.gz")).unwrap();
        let mut packages = GzEncoder::new(file, Compression::fast());
        for (id, words) in words.chunks(WORDS).enumerate() {
            writeln!(packages, "{}", json!({"id": id, "src": "demo", "text": words.join(" ")})).unwrap();
        }
        packages.finish().unwrap();
    }

    /// A path in the cache directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.cache.path().join(name)
    }

    /// Runs a sub-command, which must succeed.
    pub(crate) fn output(&self, format: &[&str], arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearfield-bench"));
        command.env_remove("NEARFIELD_DATA").stdin(Stdio::null()).args(format);
        command.arg("--data").arg(self.data.path());
        command.arg("--cache-dir").arg(self.cache.path());
        command.arg("--model").arg(&self.model);
        let output = command.args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{command:?} exited with {}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        output
    }

    /// The rows that a sub-command prints as JSON; there must be at least one.
    pub(crate) fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.output(&["--json"], arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!rows.is_empty(), "{arguments:?} printed nothing");
        rows
    }
}

/// The rows of one table.
pub(crate) fn table<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    let rows: Vec<&Value> = rows.iter().filter(|row| row["bench"] == name).collect();
    assert!(!rows.is_empty(), "there is no table {name}");
    rows
}

/// A number in a row.
pub(crate) fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("no number {name} in {row}"))
}

/// Asserts that a number is positive in all rows.
pub(crate) fn assert_positive(rows: &[&Value], names: &[&str]) {
    for row in rows {
        for name in names {
            assert!(number(row, name) > 0.0, "{name} is not positive in {row}");
        }
    }
}

/// The last core, on which clients run.
pub(crate) fn last_core() -> String {
    (std::thread::available_parallelism().map_or(1, usize::from) - 1).to_string()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn install_redis() -> Result<(), String> {
    let script = repository().join("tools/redis_stack.py");
    match Command::new("python3").arg(&script).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "Redis Stack is not available: {} failed: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("Redis Stack is not available: {}: {error}", script.display())),
    }
}

fn skip(requirement: &str, reason: &str) -> Option<Bench> {
    let required = std::env::var(format!("NEARFIELD_REQUIRE_{requirement}"));
    assert!(required.as_deref() != Ok("1"), "{reason}");
    eprintln!("SKIPPED: {reason}");
    None
}
