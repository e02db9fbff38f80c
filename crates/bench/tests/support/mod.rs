//! Runs `nearfield-bench` on small data derived from the bundled knowledge base.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::{real_model, redis_stack, requirement::Requirement};

/// Words per document of the derived corpus.
const WORDS: usize = 20;

/// A data directory, a cache directory and the model.
pub(crate) struct Bench {
    data: TempDir,
    cache: TempDir,
    model: PathBuf,
}

impl Bench {
    /// Prepares the directories. `None` if the test is to be skipped for lack of the model or of the `nearfield` binary;
    /// see [`Requirement::Model`].
    pub(crate) fn new() -> Option<Bench> {
        let model = real_model::minilm()?;
        Requirement::Model.find(|| {
            let server = Path::new(env!("CARGO_BIN_EXE_nearfield-bench")).with_file_name("nearfield");
            let message = || format!("there is no {}: run `cargo build -p nearfield`", server.display());
            server.exists().then_some(()).ok_or_else(message)
        })?;
        let directory = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bench = Bench { data: directory(), cache: directory(), model };
        bench.write_data();
        Some(bench)
    }

    /// The same for benchmarks that need Redis Stack.
    pub(crate) fn with_redis() -> Option<Bench> {
        if redis_stack::is_installed() { Bench::new() } else { None }
    }

    /// The corpus of packages is the text of the bundled knowledge base, split into documents of [`WORDS`] words, and SciFact is
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
        let shorten = |line: &str| {
            let mut article: Value = serde_json::from_str(line).unwrap();
            let words = article["text"].as_str().unwrap().split_whitespace().take(WORDS).collect::<Vec<_>>();
            article["text"] = words.join(" ").into();
            format!("{article}\n")
        };
        fs::write(scifact.join("corpus.jsonl"), articles.lines().map(shorten).collect::<String>()).unwrap();
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

    /// A sub-command with its arguments, separated by spaces.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearfield-bench"));
        command.env_remove("NEARFIELD_DATA").stdin(Stdio::null());
        command.arg("--data").arg(self.data.path());
        command.arg("--cache-dir").arg(self.cache.path());
        command.arg("--model").arg(&self.model);
        command.args(arguments.split_whitespace());
        command
    }

    /// The standard output of a sub-command, which must succeed.
    pub(crate) fn table_text(&self, arguments: &str) -> String {
        stdout(&mut self.command(arguments))
    }

    /// The rows that a sub-command prints as JSON; there must be at least one.
    pub(crate) fn rows(&self, arguments: &str) -> Vec<Value> {
        json_rows(self.command(arguments).arg("--json"))
    }

    /// The same for a sub-command that also draws a plot; returns the rows and the plot as SVG.
    pub(crate) fn rows_and_plot(&self, arguments: &str) -> (Vec<Value>, String) {
        let plot = self.cache.path().join("plot.svg");
        let rows = json_rows(self.command(arguments).arg("--json").arg("--plot").arg(&plot));
        (rows, fs::read_to_string(plot).unwrap())
    }
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?} exited with {}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json_rows(command: &mut Command) -> Vec<Value> {
    let rows: Vec<Value> = stdout(command).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!rows.is_empty(), "{command:?} printed nothing");
    rows
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
