//! What `index` acknowledged is there after it was killed at any moment: ten kills, each in the
//! middle of rewriting all documents, each followed by a look at everything that is stored.
#![cfg(unix)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use axum::{body::Body, http::Request};
use nearfield::{
    config::{Flags, Settings},
    http::{self, HttpSettings},
    service::Service,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const KILLS: u64 = 10;
const DOCUMENTS: usize = 3000;
const BATCH: &str = "50";
const SEED: u64 = 0x6e65_6172;

/// Longer than a whole round takes: beyond it the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// splitmix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

struct Home(tempfile::TempDir);

impl Home {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("nearfield"));
        command.args(args).args(["--collection", "notes"]).env("NEARFIELD_HOME", self.0.path());
        command.env_remove("NEARFIELD_URL").env_remove("NEARFIELD_DATA_DIR").stdin(Stdio::null());
        command
    }

    /// Makes the collection: every document brings its own vector, so that no model is needed.
    fn make_collection(&self) {
        let flags = Flags { home: Some(self.0.path().to_owned()), ..Flags::default() };
        let settings = Settings::from_sources(&flags, None, []).unwrap();
        let service = Service::open(settings.service()).unwrap();
        let schema = json!({"fields": [
            {"name": "text", "kind": "text"},
            {"name": "round", "kind": "numeric"},
            {"name": "place", "kind": "vector", "dim": 4, "metric": "l2"},
        ]});
        let request = Request::put("/collections/notes")
            .header("content-type", "application/json")
            .body(Body::from(schema.to_string()))
            .unwrap();
        let router = http::router(service.clone(), HttpSettings::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(router.oneshot(request)).unwrap().status(), 201);
        service.close();
    }

    /// Writes all documents as they are in `round`.
    fn write_round(&self, round: u64) -> String {
        let lines: String = (0..DOCUMENTS).map(|number| format!("{}\n", document(number, round))).collect();
        let path = self.path("notes.jsonl");
        fs::write(&path, lines).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The round each stored document is of, by id. Every document has to be whole.
    fn rounds(&self) -> BTreeMap<String, u64> {
        let output = self.command(&["export", "--vectors"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut rounds = BTreeMap::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let found: Value = serde_json::from_str(line).unwrap();
            let (id, round) = (found["id"].as_str().unwrap(), found["round"].as_u64().unwrap());
            let number: usize = id.parse().unwrap();
            let mut expected = document(number, round);
            let vector = vector(number, round).map(f32::to_le_bytes).concat();
            expected["place"] = json!({"base64": base64(&vector)});
            assert_eq!(found, expected, "a torn document");
            assert_eq!(rounds.insert(id.to_owned(), round), None, "document {id} is there twice");
        }
        rounds
    }
}

fn vector(number: usize, round: u64) -> [f32; 4] {
    [number as f32, round as f32, 1.0, -0.5]
}

fn document(number: usize, round: u64) -> Value {
    json!({
        "id": number.to_string(),
        "text": format!("note {number} as of round {round} ").repeat(1 + number % 40),
        "round": round,
        "place": vector(number, round),
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// Whole lines of a file that may not be there yet; a line without its end was not acknowledged.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_acknowledged_is_lost_to_ten_kills() {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let home = Home(tempfile::tempdir().unwrap());
    home.make_collection();
    // The least round each document must be of.
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut kills = 0;
    let mut round = 0;
    while kills < KILLS {
        round += 1;
        assert!(round <= 3 * KILLS, "the runs end before they are killed");
        let file = home.write_round(round);
        let acks = home.path(&format!("acks-{round}"));
        let args = ["index", &file, "--batch-size", BATCH, "--acks", acks.to_str().unwrap(), "--quiet"];
        let mut child =
            home.command(&args).process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Somewhere in the run, then somewhere in whatever it does there.
        let target = random.below(DOCUMENTS as u64 * 4 / 5) as usize;
        let more = Duration::from_micros(random.below(20_000));
        let started = Instant::now();
        while lines(&acks).len() < target && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "round {round} does not get on");
            thread::yield_now();
        }
        let until = Instant::now() + more;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        if child.try_wait().unwrap().is_none() {
            let kill = format!("kill -KILL -{}", child.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            kills += 1;
        }
        child.wait().unwrap();
        acknowledged.extend(lines(&acks).into_iter().map(|id| (id, round)));
        let found = home.rounds();
        for (id, least) in &acknowledged {
            let is = found.get(id);
            assert!(
                is.is_some_and(|is| is >= least),
                "document {id}: acknowledged in round {least}, found {is:?}"
            );
        }
        assert!(found.values().all(|is| *is <= round));
    }
    assert!(!acknowledged.is_empty());

    round += 1;
    let file = home.write_round(round);
    let output = home.command(&["index", &file, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["rows"], &report["rejected"]), (&DOCUMENTS.into(), &0.into()));
    let found = home.rounds();
    assert_eq!(found.len(), DOCUMENTS);
    assert!(found.values().all(|is| *is == round));
}
