//! `backup`, `restore`, `check` and `repair`.

use std::fs;

use assert_cmd::assert::OutputAssertExt as _;
use serde_json::Value;

use crate::{
    documents::{document, home_with_documents, write_documents},
    program::{TestHome, output},
};

const DOCUMENTS: usize = 300;

/// The exported documents without their remaining time to live.
pub(crate) fn exported_documents(home: &TestHome) -> Vec<String> {
    let lines = home.ok(&["export", "--vectors"]);
    let mut documents: Vec<String> = lines
        .lines()
        .map(|line| {
            let mut document: Value = serde_json::from_str(line).unwrap();
            assert!(document.as_object_mut().unwrap().remove("ttl_s").is_some(), "{line}");
            document.to_string()
        })
        .collect();
    documents.sort();
    documents
}

/// A store with indexed documents and a snapshot.
fn home_with_snapshot() -> TestHome {
    let (home, file) = home_with_documents(DOCUMENTS);
    home.ok(&["index", &file, "-c", "things", "--ttl", "30d"]);
    home
}

#[test]
fn restores_a_complete_backup() {
    let home = home_with_snapshot();
    let before = home.json(&["stats"]);
    let report = home.json(&["backup", "saved"]);
    assert_eq!((&report["documents"], &report["last_seq"]), (&before["documents"], &before["last_seq"]));
    assert_eq!(report["bytes"].as_u64(), Some(fs::metadata(home.path("saved")).unwrap().len()));
    assert!(home.ok(&["check", "saved"]).contains("300 documents"));
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 300 documents"));

    let target = TestHome::new();
    let saved = home.path("saved");
    target.ok(&["restore", saved.to_str().unwrap()]);
    assert_eq!(exported_documents(&target), exported_documents(&home));
    assert_eq!(target.json(&["stats"])["last_seq"], before["last_seq"]);
    assert!(target.ok(&["check"]).starts_with("nothing is damaged"));
    // Sequence numbers continue.
    let more = target.write("more.jsonl", format!("{}\n", document(DOCUMENTS)));
    target.ok(&["index", &more, "-c", "things"]);
    assert_eq!(target.json(&["stats"])["documents"], DOCUMENTS + 1);
}

#[test]
fn restore_replaces_documents_only_with_replace() {
    let home = home_with_snapshot();
    home.ok(&["backup", "saved"]);
    home.ok(&["delete", "thing/1"]);
    home.fails(1, &["restore", "saved"], &["holds 299 documents", "replaced"]);
    assert_eq!(exported_documents(&home).len(), DOCUMENTS - 1);
    let report = home.json(&["restore", "saved", "--replace"]);
    assert_eq!(exported_documents(&home).len(), DOCUMENTS);
    let kept = report["kept"].as_str().unwrap();
    assert!(kept.ends_with("nearfield.redb.replaced-1"), "{kept}");
    assert!(fs::metadata(kept).unwrap().len() > 0);
}

#[test]
fn rejects_an_incomplete_backup_without_changing_anything() {
    let home = home_with_snapshot();
    home.ok(&["backup", "saved"]);
    let backup = fs::read(home.path("saved")).unwrap();
    let before = exported_documents(&home);
    for (len, flipped) in [(0, None), (5, None), (backup.len() / 2, None), (backup.len() - 1, None)]
        .into_iter()
        .chain([9, 40, backup.len() / 3, backup.len() - 3].map(|position| (backup.len(), Some(position))))
    {
        let mut bytes = backup[..len].to_vec();
        if let Some(position) = flipped {
            bytes[position] ^= 0x10;
        }
        let damaged = home.write("damaged", &bytes);
        home.fails(1, &["check", &damaged], &["damaged"]);
        home.fails(1, &["restore", &damaged, "--replace"], &["damaged"]);
        assert!(!home.path("data/nearfield.redb.unfinished").exists());
    }
    home.fails(
        1,
        &["restore", &home.write("text", "this is no backup at all"), "--replace"],
        &["not a Nearfield backup"],
    );
    home.fails(1, &["restore", "nowhere"], &["nowhere"]);
    assert_eq!(exported_documents(&home), before);
}

#[test]
fn a_killed_restore_keeps_the_old_store() {
    let home = home_with_snapshot();
    home.ok(&["backup", "saved"]);
    let before = exported_documents(&home);
    // A killed restore leaves an incomplete store.
    home.write("data/nearfield.redb.unfinished", "half of a store");
    assert_eq!(exported_documents(&home), before);
    assert!(!home.path("data/nearfield.redb.unfinished").exists());
}

#[test]
fn backs_up_through_the_server_and_refuses_to_restore_into_a_directory_in_use() {
    let home = home_with_snapshot();
    let server = home.serve(&[]);
    let report = home.json(&["backup", "saved"]);
    assert_eq!(report["documents"], DOCUMENTS);
    for command in [&["check"][..], &["repair"], &["restore", "saved", "--replace"]] {
        home.fails(4, command, &["in use"]);
    }
    drop(server);
    let target = TestHome::new();
    target.ok(&["restore", home.path("saved").to_str().unwrap()]);
    assert_eq!(exported_documents(&target), exported_documents(&home));
}

#[test]
fn check_finds_damage_and_repair_saves_readable_rows() {
    let home = home_with_snapshot();
    let store = home.path("data/nearfield.redb");
    let mut bytes = fs::read(&store).unwrap();
    // Inside a value that occurs in one document only.
    let value = b"Thing \"123\"\nof many";
    let is_value = |position: &usize| bytes[*position..].starts_with(value);
    let positions: Vec<usize> = (0..bytes.len() - value.len()).filter(is_value).collect();
    assert!(!positions.is_empty());
    for position in positions {
        bytes[position] ^= 1;
    }
    fs::write(&store, &bytes).unwrap();
    let snapshots: Vec<_> =
        fs::read_dir(home.path("data/snapshots")).unwrap().map(|e| e.unwrap().path()).collect();
    let mut snapshot = fs::read(&snapshots[0]).unwrap();
    let middle = snapshot.len() / 2;
    snapshot[middle] ^= 1;
    fs::write(&snapshots[0], snapshot).unwrap();

    let checked = home.run(&["check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains("checksum does not match"), "{checked:?}");
    assert!(checked.out.contains("nearfield.redb: "), "{checked:?}");
    assert!(
        checked.out.contains(".snapshot: it is damaged: ") && checked.out.contains("the frame at byte "),
        "{checked:?}"
    );

    let report = home.json(&["repair"]);
    assert_eq!(report["documents"], DOCUMENTS - 1);
    assert!(report["lost"][0].as_str().unwrap().contains("table documents, key "), "{report}");
    assert_eq!(report["lost_rows"], 1, "{report}");
    assert!(report["kept"].as_str().unwrap().ends_with("nearfield.redb.damaged-1"), "{report}");
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 299 documents"));
    assert!(!exported_documents(&home).iter().any(|document| document.contains("\"thing/123\"")));
    // The repaired store is writable.
    let file = write_documents(&home, DOCUMENTS);
    home.ok(&["index", &file, "-c", "things", "--ttl", "30d"]);
    assert_eq!(exported_documents(&home).len(), DOCUMENTS);
}

/// A user without rights to files of others.
#[cfg(unix)]
const NOBODY: u32 = 65_534;

/// Makes a directory and everything in it readable, and nothing writable, for a user without rights of its own.
#[cfg(unix)]
fn protect(path: &std::path::Path) {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| protect(&entry.unwrap().path()));
    }
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mode = if path.is_dir() { 0o500 } else { 0o400 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn check_needs_no_permission_to_write_and_repair_says_what_it_needs() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    let home = home_with_snapshot();
    protect(&home.path(""));
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        output(command.assert())
    };
    for lock in ["a lock file", "no lock file"] {
        let checked = run(&["check"]);
        assert_eq!(checked.code, Some(0), "{lock}: {checked:?}");
        assert!(checked.out.starts_with("nothing is damaged: 300 documents"), "{lock}: {checked:?}");
        for command in [&["repair"][..], &["collections"]] {
            let failed = run(command);
            assert_eq!(failed.code, Some(4), "{lock}: {failed:?}");
            assert!(failed.err.contains("permission to create and change files"), "{lock}: {failed:?}");
        }
        fs::set_permissions(home.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
        let _ = fs::remove_file(home.path("data/lock"));
        fs::set_permissions(home.path("data"), fs::Permissions::from_mode(0o500)).unwrap();
    }
    fs::set_permissions(home.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o700)).unwrap();
}

/// redb panics on some damaged pages. The panics become findings.
#[test]
fn check_and_repair_of_a_damaged_store_print_no_panic() {
    const PAGE_BYTES: usize = 4096;
    const DAMAGED_PAGES: usize = 24;
    let home = home_with_snapshot();
    let store = home.path("data/nearfield.redb");
    let whole = fs::read(&store).unwrap();
    let pages: Vec<usize> =
        (1..whole.len() / PAGE_BYTES).filter(|page| whole[page * PAGE_BYTES] != 0).collect();
    for page in pages.iter().step_by(pages.len() / DAMAGED_PAGES) {
        let mut damaged = whole.clone();
        damaged[page * PAGE_BYTES + 2..page * PAGE_BYTES + 12].fill(0xff);
        for command in ["check", "repair"] {
            fs::write(&store, &damaged).unwrap();
            let run = output(home.command(&[command]).env("RUST_BACKTRACE", "1").assert());
            assert!(matches!(run.code, Some(0 | 1 | 4)), "page {page}: {run:?}");
            for trace in ["panicked", "backtrace", "RUST_BACKTRACE"] {
                assert!(!run.err.contains(trace), "{command} with page {page} damaged: {run:?}");
            }
        }
        for entry in fs::read_dir(home.path("data")).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains(".damaged-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}
