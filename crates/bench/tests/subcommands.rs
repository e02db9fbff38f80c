//! Every sub-command and part of `nearfield-bench` at its smallest size, without peers. The figures are
//! meaningless; what is tested is that each benchmark runs and prints its table.

mod support;

use serde_json::Value;
use support::{Bench, assert_positive, last_core, number, table};

#[test]
fn help_and_a_missing_corpus_are_reported_without_data() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nearfield-bench"));
        command.env_remove("NEARFIELD_DATA").args(arguments).output().unwrap()
    };
    assert!(run(&["--help"]).status.success());
    let missing = run(&["overload", "--data", "does-not-exist"]);
    assert!(!missing.status.success());
    let error = String::from_utf8_lossy(&missing.stderr).into_owned();
    for part in ["does-not-exist/corpora/packages_250k.jsonl.gz", "NEARFIELD_DATA", "docs/benchmarks.md"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn tables_are_printed_in_markdown() {
    let Some(bench) = Bench::new() else { return };
    let text = bench.table_text("durability --documents 10 --writers 1 --seconds 0.1 --rounds 1");
    assert!(text.starts_with("nearfield-bench durability, "), "{text}");
    assert!(text.contains("| writes_per_s |"), "{text}");
}

#[test]
fn embed_speed() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("embed --part speed --peers none --point 8x1,12x2 --runs 1 --seconds 0.01");
    assert_positive(&table(&rows, "embed"), &["us_per_text"]);
    assert_eq!(rows.len(), 2 * 3, "two points, three arithmetics: {rows:?}");
}

#[test]
fn embed_bulk() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("embed --part bulk --peers none --runs 1 --bulk-texts 20");
    assert_positive(&table(&rows, "embed bulk"), &["texts_per_s"]);
}

#[test]
fn embed_quality() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(
        "embed --part quality --peers none --cosine-texts 50 --overlap-documents 50 --overlap-queries 20",
    );
    for row in table(&rows, "embed cosine") {
        assert!(number(row, "cosine_min") > 0.9, "{row}");
    }
    for row in table(&rows, "embed overlap") {
        assert!(number(row, "overlap_at_10_with_f32") > 0.8, "{row}");
    }
}

#[test]
fn embed_scifact() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("embed --part scifact --peers none");
    for row in table(&rows, "embed scifact") {
        assert!(number(row, "ndcg_at_10") > 0.5, "{row}");
    }
}

/// The arguments of one part of `index` on little data.
fn index(part: &str) -> String {
    format!(
        "index --part {part} --peers none --limit 150 --queries 40 --runs 1 --quantization int8 --ef 10,40 --core {}",
        last_core()
    )
}

#[test]
fn index_targets_with_a_plot() {
    let Some(bench) = Bench::new() else { return };
    let (rows, plot) = bench.rows_and_plot(&format!("{} --target 0.9", index("targets")));
    assert_positive(&table(&rows, "index targets"), &["bytes_per_vector"]);
    assert!(plot.contains("recall@10"));
}

#[test]
fn index_ef() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(&index("ef"));
    let rows = table(&rows, "index ef");
    assert_positive(&rows, &["qps", "p99_us"]);
    assert!(number(rows[1], "recall_at_10") > 0.9, "{}", rows[1]);
}

#[test]
fn index_article() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(&format!("{} --grid 8x40,16x40", index("article")));
    for name in ["index article 8.2 m, ef_construction", "index article 8.2 ef_search", "index article 6.4"] {
        assert_positive(&table(&rows, name), &["qps", "recall_at_10"]);
    }
    assert_eq!(table(&rows, "index article 8.2 m, ef_construction").len(), 2);
    assert_positive(&table(&rows, "index article 6.4"), &["scifact_ndcg_at_10", "scifact_ndcg_at_10_exact"]);
}

#[test]
fn index_growth_with_a_plot() {
    let Some(bench) = Bench::new() else { return };
    let (rows, plot) = bench.rows_and_plot(&format!("{} --sizes 50,150", index("growth")));
    let rows = table(&rows, "index growth");
    assert_positive(&rows, &["bytes_per_vector"]);
    assert_eq!(rows.len(), 2);
    assert!(plot.contains("bytes per vector"));
}

#[test]
fn index_live() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(&format!("{} --churns 1", index("live")));
    let rows = table(&rows, "index live");
    let identical = rows.iter().find(|row| row["metric"] == "identical results after reading back").unwrap();
    assert_eq!(identical["met"], "met", "{identical}");
}

#[test]
fn load_with_vectors_and_with_text() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("load --documents 60 --batch 20");
    let rows = table(&rows, "load");
    assert_positive(&rows, &["documents_per_s", "disk_bytes_per_document"]);
    assert_eq!(rows.iter().map(|row| row["mode"].as_str().unwrap()).collect::<Vec<_>>(), ["vectors", "text"]);
}

#[test]
fn durability() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("durability --documents 20 --seconds 0.1 --rounds 1");
    assert_positive(&table(&rows, "durability"), &["writes_per_s", "p99_ms"]);
}

#[test]
fn redis() {
    let Some(bench) = Bench::with_redis() else { return };
    let rows = bench.rows(&format!(
        "redis --peers none --limit 120 --batch 20 --slices 2 --runs 1 --queries 30 --fewer-writes 50 --client-core {}",
        last_core()
    ));
    assert_positive(&table(&rows, "redis pipelining"), &["us_per_command"]);
    assert_positive(&table(&rows, "redis load"), &["documents_per_s", "used_memory_bytes_per_document"]);
    assert_positive(&table(&rows, "redis knn"), &["qps"]);
    assert_positive(&table(&rows, "redis memory"), &["memory_bytes_per_document"]);
}

#[test]
fn cluster() {
    let Some(bench) = Bench::with_redis() else { return };
    let rows = bench.rows(&format!(
        "cluster --limit 120 --primaries 1,2 --batch 20 --slices 1 --queries 20 --runs 1 --ef 120 --client-core {}",
        last_core()
    ));
    assert_positive(&table(&rows, "cluster load"), &["documents_per_s"]);
    assert_positive(&table(&rows, "cluster nodes"), &["documents"]);
    for row in table(&rows, "cluster search") {
        assert_eq!(number(row, "equal_to_exact"), 1.0, "{row}");
    }
}

/// Runs one part of `serve` on little data.
fn serve(bench: &Bench, part: &str) -> Vec<Value> {
    bench.rows(&format!(
        "serve --part {part} --peers none --documents 200 --runs 1 --seconds 0.5 --qps 20 --connections 16 \
         --queries 20 --recall-queries 20 --distinct 200 --quiet-seconds 0 --client-core {}",
        last_core()
    ))
}

/// Asserts that open-loop load was answered without errors.
fn assert_answered(rows: &[Value]) {
    for row in table(rows, "serve") {
        assert_eq!(row["errors"], "-", "{row}");
        assert!(number(row, "qps") > 0.0 && number(row, "end_to_end_recall_at_10") > 0.8, "{row}");
    }
}

#[test]
fn serve_embedding() {
    let Some(bench) = Bench::new() else { return };
    let rows = serve(&bench, "embedding");
    assert_positive(&table(&rows, "serve embedding"), &["texts_per_s", "sequential_p50_ms"]);
}

#[test]
fn serve_sequential() {
    let Some(bench) = Bench::new() else { return };
    let rows = serve(&bench, "sequential");
    assert_positive(&table(&rows, "serve sequential"), &["p50_ms", "rss_mib"]);
}

#[test]
fn serve_search() {
    let Some(bench) = Bench::new() else { return };
    assert_answered(&serve(&bench, "search"));
}

#[test]
fn serve_search_within_a_budget() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(&format!(
        "serve --part search --documents 100 --runs 1 --seconds 0.2 --budget-ms 50 --connections 16 \
         --recall-queries 10 --distinct 200 --quiet-seconds 0 --client-core {}",
        last_core()
    ));
    assert_positive(&table(&rows, "serve"), &["offered_qps", "budget_ms"]);
}

#[test]
fn serve_mix() {
    let Some(bench) = Bench::new() else { return };
    assert_answered(&serve(&bench, "mix"));
}

#[test]
fn serve_cores() {
    let Some(bench) = Bench::new() else { return };
    let rows = serve(&bench, "cores");
    assert_positive(&table(&rows, "serve cores"), &["qps", "cpu_us_per_query"]);
}

#[test]
fn serve_stacks() {
    let Some(bench) = Bench::with_redis() else { return };
    let rows = serve(&bench, "stacks");
    assert_answered(&rows);
    assert_positive(&table(&rows, "serve"), &["redis_rss_mib"]);
}

#[test]
fn overload() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows(&format!(
        "overload --documents 100 --budget-ms 1000 --from 10 --times 3 --seconds 1 --step-seconds 0.3 \
         --recovery-seconds 0.5 --connections 50 --client-core {}",
        last_core()
    ));
    let rows = table(&rows, "overload");
    assert_positive(&rows, &["capacity_per_s", "answered_per_s", "health_p99_ms", "written_meanwhile"]);
    assert_eq!(rows[0]["failed_otherwise"], 0, "{}", rows[0]);
}

#[test]
fn restart() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench.rows("restart --documents 500 --runs 1");
    for row in table(&rows, "restart") {
        assert!(number(row, "recall_at_10_min") > 0.9, "{row}");
    }
}

#[test]
fn soak() {
    let Some(bench) = Bench::new() else { return };
    let rows = bench
        .rows("soak --minutes 0.08 --warm-up-minutes 0 --documents 60 --qps 10 --writes 40 --window-s 1.5");
    let rows = table(&rows, "soak");
    assert_positive(&rows[rows.len() - 1..], &["written", "minutes"]);
}

/// Checks the claims of the article whose ids start with these prefixes. Those about speed or scale, whose ids start
/// with a prefix in `may_be_unmet`, must be measured but need not be met.
fn check_article(bench: &Bench, prefixes: &[&str], may_be_unmet: &[&str]) {
    let claims: String = prefixes.iter().map(|prefix| format!(" --row {prefix}")).collect();
    let rows = bench.rows(&format!(
        "article --peers none --documents 150 --sweep 150 --seconds 0.1 --searches 100{claims}"
    ));
    for row in table(&rows, "article") {
        let (id, ours) = (row["row"].as_str().unwrap(), row["ours"].as_str().unwrap());
        let is_too_slow = ours.contains("the machine was too slow");
        assert!(is_too_slow || !ours.starts_with("the check failed"), "{id}: {ours}");
        if !may_be_unmet.iter().any(|prefix| id.starts_with(prefix)) {
            assert_ne!(row["met"], "no", "{id}: {ours}");
        }
    }
}

#[test]
fn article_introduction_and_fundamentals() {
    let Some(bench) = Bench::new() else { return };
    let may_be_unmet = [
        "0-real",
        "0-thousands",
        "0-sub",
        "1-",
        "2.1-linear",
        "2.1-hnsw",
        "2.1-recall",
        "2.1-cosine-formula",
    ];
    check_article(&bench, &["0-", "1-", "2."], &may_be_unmet);
}

#[test]
fn article_redis_as_a_vector_database_and_the_pipeline() {
    let Some(bench) = Bench::with_redis() else { return };
    check_article(&bench, &["3-", "3.", "4-", "4."], &["4.2", "4.3-without"]);
}

#[test]
fn article_concurrency_and_tuning() {
    let Some(bench) = Bench::new() else { return };
    let may_be_unmet = ["5-", "5.1", "5.2", "5.3-workers", "5.3-10k", "8.1", "8.2", "8.3", "8.4-60-30-10"];
    check_article(&bench, &["5-", "5.", "8."], &may_be_unmet);
}

#[test]
fn article_scaling() {
    let Some(bench) = Bench::with_redis() else { return };
    let may_be_unmet =
        ["6.1-replicas", "6.2", "6.3-connection", "6.4-float16", "6.4-int8", "6.4-ttl", "6.4-redis-ttl"];
    check_article(&bench, &["6."], &may_be_unmet);
}

#[test]
fn article_knowledge_base_pitfalls_and_conclusion() {
    let Some(bench) = Bench::with_redis() else { return };
    check_article(
        &bench,
        &["7-", "7.", "9.", "10-"],
        &["7-", "7.4", "9.5-excessive", "10-sub", "10-2", "10-3", "10-4"],
    );
}
