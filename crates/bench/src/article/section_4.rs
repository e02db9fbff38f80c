//! Section 4: the pipeline of dependencies, embedding, bulk indexing and queries.

use std::{io::Write, process::Command};

use anyhow::{Context, Result, ensure};
use embed::ComputeType;
use serde_json::{Value, json};

use super::{Claim, Verdict, fixtures::Fixtures};
use crate::{sample::Sample, server};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "4-pipeline",
        article: "a complete, production-ready pipeline: embed, store, retrieve",
        peer: "does not run as printed: FT.CREATE and FT.SEARCH are rejected [wire 01, 04]",
        check: |fixtures| {
            let report = fixtures.knowledge_base()?.index_report.clone();
            let counts = fixtures.answer_counts(5)?;
            Ok(Verdict::new(
                report["indexed"].as_u64() > Some(0) && report["rejected"] == 0 && counts.found > 0,
                format!(
                    "{} articles indexed from CSV; {} of {} questions answered among the first 5 hits",
                    report["indexed"], counts.found, counts.queries
                ),
            ))
        },
    },
    Claim {
        id: "4.1-dependencies",
        article: "pip install redis sentence-transformers numpy",
        peer: "",
        check: |_| {
            let binary = server::binary()?;
            let mib = std::fs::metadata(&binary)?.len() as f64 / 1_048_576.0;
            let output = Command::new("ldd").arg(&binary).output().context("run ldd")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let system = ["linux-vdso", "libc.so", "libm.so", "libgcc_s", "ld-linux"];
            let others: Vec<&str> = text
                .lines()
                .map(str::trim)
                .filter(|line| {
                    !line.is_empty()
                        && !line.starts_with("statically")
                        && !system.iter().any(|name| line.contains(name))
                })
                .collect();
            Ok(Verdict::new(
                output.status.success() && others.is_empty(),
                format!(
                    "one binary of {mib:.1} MiB that depends only on the C library{}",
                    if others.is_empty() { String::new() } else { format!(", and {others:?}") }
                ),
            ))
        },
    },
    Claim {
        id: "4.2-embed-text",
        article: "SentenceTransformer('all-MiniLM-L6-v2').encode(text, normalize_embeddings=True): 384 normalised float32",
        peer: "11 to 24 ms for one short query [embedding]",
        check: |fixtures| {
            let model = fixtures.global.model()?;
            let mut times = Vec::new();
            let mut worst: f64 = 0.0;
            for query in crate::corpus::queries(&fixtures.global.data.package_queries()?)?.iter().take(200) {
                let began = std::time::Instant::now();
                let vector = model.embed(&[model.tokenize(query)], ComputeType::F32);
                times.push(began.elapsed().as_secs_f64() * 1e3);
                ensure!(vector.len() == 384, "{} values", vector.len());
                worst = worst
                    .max((vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() - 1.0).abs());
            }
            let times = Sample::new(times);
            Ok(Verdict::new(
                worst < 1e-4 && times.median() < 11.0,
                format!(
                    "text to vector: median {:.2} ms, p99 {:.2} ms of 200 short queries, one thread; squared norms within {worst:.1e} of 1",
                    times.median(),
                    times.quantile(0.99)
                ),
            ))
        },
    },
    Claim {
        id: "4.3-bulk-index-csv",
        article: "bulk_index(csv_path, batch_size=500): CSV with id,title,content",
        peer: "",
        check: bulk_index,
    },
    Claim {
        id: "4.3-progress",
        article: "for row in tqdm.tqdm(reader): progress",
        peer: "",
        check: progress,
    },
    Claim {
        id: "4.3-store-batch",
        article: "_store_batch: 500 documents in one pipeline",
        peer: "a document with an invalid vector is dropped silently [wire 03]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("batch", &json!({}))?;
            let mut documents: Vec<Value> = (0..500)
                .map(|number| json!({"id": number.to_string(), "embedding": [1, number, 0, 0]}))
                .collect();
            documents[123]["embedding"] = json!([1, 2, 3]);
            let response = api.post("/collections/batch/documents", &json!(documents))?.expect(200)?;
            let results = response.body["results"].as_array().context("no results")?;
            let in_order = results
                .iter()
                .zip(0..)
                .all(|(result, number): (&Value, usize)| result["id"].as_str() == Some(&number.to_string()));
            let is_reported = results.get(123).is_some_and(|result| result["status"] == "error");
            Ok(Verdict::new(
                results.len() == 500 && in_order && is_reported && response.body["created"] == 499,
                format!(
                    "500 documents in one request in {:.0} ms: a result for each, the one with an invalid vector reported, the others stored ({})",
                    response.took.as_secs_f64() * 1e3,
                    response.body["created"]
                ),
            ))
        },
    },
    Claim {
        id: "4.3-without-transactions",
        article: "a non-transactional pipeline avoids the overhead of MULTI/EXEC",
        peer: "a pipeline is neither atomic nor durable when answered (appendonly no) [wire 10]",
        check: |fixtures| {
            let api = fixtures.api()?;
            api.recreate("grouped", &json!({}))?;
            let before =
                api.get("/stats")?.expect(200)?.body["commits"].as_u64().context("no commits in /stats")?;
            let documents: Vec<Value> = (0..500)
                .map(|number| json!({"id": number.to_string(), "embedding": [1, number, 0, 0]}))
                .collect();
            api.write("grouped", &documents)?;
            let commits =
                api.get("/stats")?.body["commits"].as_u64().context("no commits in /stats")? - before;
            Ok(Verdict::new(
                (1..=8).contains(&commits),
                format!("500 documents in {commits} durable commits (fsync before the response)"),
            ))
        },
    },
    Claim {
        id: "4.4-search",
        article: "search(query, k=5): top-k documents with id, title, content, score",
        peer: "as printed the best hit is discarded (result.docs[1:]) and no score is returned [wire 04]",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            let article =
                knowledge.api.get("/collections/kb/documents/kb-001")?.expect(200)?.body["fields"].clone();
            let title = article["title"].as_str().context("no title")?;
            let response = knowledge.api.search_text("kb", title, 5)?.expect(200)?;
            let first = &response.body["results"][0];
            let is_complete = ["id", "title", "content"].iter().all(|name| first[name].is_string())
                && first["score"].is_number();
            let count = response.body["results"].as_array().map_or(0, Vec::len);
            Ok(Verdict::new(
                count == 5 && is_complete && first["id"] == "kb-001",
                format!(
                    "{count} hits with id, title, content, score; the article with the queried title comes first: {}",
                    first["id"]
                ),
            ))
        },
    },
    Claim {
        id: "4.4-sorted-by-score",
        article: "sort_by(__embedding_score), ascending",
        peer: "without SORTBY hits are in document order, without LIMIT at most 10 [wire 04]",
        check: |fixtures| {
            let knowledge = fixtures.knowledge_base()?;
            let hits = knowledge.api.search_text("kb", "I cannot sign in any more", 100)?.hits()?;
            let sorted = hits.is_sorted_by(|a, b| a.distance <= b.distance);
            Ok(Verdict::new(
                hits.len() == 100 && sorted,
                format!("{} hits for k = 100, by distance: {sorted}", hits.len()),
            ))
        },
    },
];

fn bulk_index(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let path = fixtures.dir.path().join("bulk.csv");
    let documents = crate::corpus::documents(&fixtures.global.data.packages()?, 1000)?;
    let mut file = std::fs::File::create(&path)?;
    writeln!(file, "id,title,content")?;
    for document in &documents {
        writeln!(file, "{},package,\"{}\"", document.id, document.text.replace('"', "\"\""))?;
    }
    writeln!(file, ",no id,rejected")?;
    drop(file);
    let path = path.to_string_lossy().into_owned();
    let arguments =
        ["index", &path, "--collection", "bulk", "--batch-size", "500", "--on-error", "skip", "--json"];
    let mut reports = Vec::new();
    let mut seconds = Vec::new();
    for _ in 0..2 {
        let started = std::time::Instant::now();
        let output = fixtures.command("bulk", &arguments)?;
        seconds.push(started.elapsed().as_secs_f64());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text
            .lines()
            .last()
            .with_context(|| format!("nothing printed: {}", String::from_utf8_lossy(&output.stderr)))?;
        reports.push(serde_json::from_str::<Value>(last)?);
    }
    let count = |run: usize, name: &str| reports[run][name].as_u64().unwrap_or(u64::MAX);
    let sum = |run: usize| count(run, "indexed") + count(run, "unchanged") + count(run, "rejected");
    Ok(Verdict::new(
        count(0, "indexed") == 1000
            && count(0, "rejected") == 1
            && sum(0) == count(0, "rows")
            && count(1, "unchanged") == 1000,
        format!(
            "rows {} = indexed {} + unchanged {} + rejected {} in {:.1} s ({:.0} documents/s, embedding included); run again: unchanged {} in {:.1} s",
            count(0, "rows"),
            count(0, "indexed"),
            count(0, "unchanged"),
            count(0, "rejected"),
            seconds[0],
            1000.0 / seconds[0],
            count(1, "unchanged"),
            seconds[1],
        ),
    ))
}

/// Whether a progress bar is drawn on a terminal, which `script` emulates.
fn progress(fixtures: &mut Fixtures<'_>) -> Result<Verdict> {
    let path = fixtures.dir.path().join("progress.jsonl");
    let documents = crate::corpus::documents(&fixtures.global.data.packages()?, 300)?;
    let lines: Vec<String> = documents
        .iter()
        .map(|document| json!({"id": document.id.to_string(), "content": document.text}).to_string())
        .collect();
    std::fs::write(&path, lines.join("\n"))?;
    let models = fixtures.global.models_dir()?;
    let line = format!(
        "{} index {} --collection progress --batch-size 50 --data-dir {} --models-dir {}",
        server::binary()?.display(),
        path.display(),
        fixtures.dir.path().join("progress").display(),
        models.display(),
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NEARFIELD_DATA")
        .output()
        .context("run script")?;
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = ["rows", "/s", "ETA"].iter().all(|part| output_text.contains(part));
    Ok(Verdict::new(
        output.status.success() && shown,
        format!("a progress bar with rows, rate and time left is drawn on a terminal: {shown}"),
    ))
}
