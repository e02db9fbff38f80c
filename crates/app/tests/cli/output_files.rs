//! Output files never take the place of something else.
#![cfg(unix)]

use std::{
    fs::{self, File},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
};

use crate::{
    documents::home_with_documents,
    program::{TestHome, output},
};

const DOCUMENTS: usize = 20;

fn count(home: &TestHome) -> usize {
    home.ok(&["export", "-c", "things"]).lines().count()
}

#[test]
fn a_backup_replaces_only_an_earlier_one_of_the_same_store() {
    let (home, _) = home_with_documents(DOCUMENTS);
    for name in ["data/nearfield.redb", "data/backup", "data/snapshots/backup"] {
        for force in [&[][..], &["--force"]] {
            home.fails(2, &[&["backup", name], force].concat(), &["in the data directory"]);
        }
    }
    assert_eq!(count(&home), DOCUMENTS);
    home.write("notes", "mine");
    home.fails(2, &["backup", "notes"], &["notes", "--force"]);
    assert_eq!(home.read("notes"), "mine");
    home.ok(&["backup", "notes", "--force"]);
    home.ok(&["check", "notes"]);

    home.ok(&["backup", "saved"]);
    home.ok(&["delete", "thing/1", "-c", "things"]);
    home.ok(&["backup", "saved"]);
    let saved = home.path("saved").display().to_string();
    assert!(home.ok(&["check", &saved]).contains(&format!("{} documents", DOCUMENTS - 1)));
    assert_eq!(fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let (other, _) = home_with_documents(1);
    other.fails(2, &["backup", &saved], &["another store", "--force"]);
    assert!(home.ok(&["check", &saved]).contains(&format!("{} documents", DOCUMENTS - 1)));
    other.ok(&["backup", &saved, "--force"]);
    assert!(home.ok(&["check", &saved]).contains(" 1 documents"));
    let left = fs::read_dir(home.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("unfinished")));
}

#[test]
fn a_backup_can_be_written_to_a_pipe() {
    let (home, _) = home_with_documents(DOCUMENTS);
    let mut command = home.command(&["backup", "/dev/stdout", "--quiet", "--json"]);
    // The report goes the same way, after the backup.
    let written = command.output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let report = written.stdout.iter().rposition(|byte| *byte == b'{').unwrap();
    let saved = home.write("saved", &written.stdout[..report]);
    assert!(home.ok(&["check", &saved]).contains(&format!("{DOCUMENTS} documents")));
}

#[test]
fn an_export_keeps_existing_files_devices_and_links() {
    let (home, _) = home_with_documents(DOCUMENTS);
    let fails = |code: i32, name: &str, words: &[&str]| {
        home.fails(code, &["export", "-c", "things", "-o", name], words);
    };
    home.write("notes", "mine");
    fails(2, "notes", &["--force"]);
    assert_eq!(home.read("notes"), "mine");
    fails(2, "data", &["is a directory"]);
    fails(2, "data/lock", &["in the data directory"]);
    fails(1, "nowhere/file", &["nowhere/file"]);
    if cfg!(target_os = "linux") {
        fails(1, "/dev/full", &["/dev/full"]);
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    }
    fs::create_dir(home.path("elsewhere")).unwrap();
    symlink("elsewhere/target", home.path("link")).unwrap();
    home.ok(&["export", "-c", "things", "-o", "link"]);
    assert!(fs::symlink_metadata(home.path("link")).unwrap().is_symlink());
    assert_eq!(home.read("elsewhere/target").lines().count(), DOCUMENTS);
    assert_eq!(fs::metadata(home.path("link")).unwrap().permissions().mode() & 0o777, 0o600);
    // What a killed export left.
    home.write(".nearfield-unfinished-1", "half");
    home.ok(&["export", "-c", "things", "-o", "notes", "--force"]);
    assert!(!home.path(".nearfield-unfinished-1").exists());
    assert_eq!(home.read("notes").lines().count(), DOCUMENTS);
}

#[test]
fn rejected_rows_do_not_replace_the_input_or_other_files() {
    let (home, file) = home_with_documents(DOCUMENTS);
    let rows = fs::read(&file).unwrap();
    fs::hard_link(&file, home.path("same")).unwrap();
    symlink(&file, home.path("link")).unwrap();
    for option in ["--rejects", "--acks"] {
        for name in [&*file, "same", "link"] {
            home.fails(2, &["index", &file, "-c", "things", option, name], &["read by the same command"]);
        }
        let mut command = home.command(&["index", "-", "-c", "things", option, "same"]);
        command.stdin(File::open(&file).unwrap());
        let failed = output(assert_cmd::assert::OutputAssertExt::assert(&mut command));
        assert!(failed.code == Some(2) && failed.err.contains("read by the same command"), "{failed:?}");
        home.fails(2, &["index", &file, "-c", "things", option, "data/rows"], &["in the data directory"]);
    }
    assert_eq!(fs::read(&file).unwrap(), rows);

    home.write("rejects", "mine");
    let args = ["index", &file, "-c", "things", "--rejects", "rejects"];
    home.fails(2, &args, &["--force"]);
    assert_eq!(home.read("rejects"), "mine");
    home.ok(&[&args[..], &["--force"]].concat());
    assert_eq!(home.read("rejects"), "");
    home.fails(2, &["index", &file, "-c", "things", "--rejects", "new", "--acks", "new"], &["same file"]);
}

#[test]
fn a_restore_replaces_nothing_but_a_store() {
    let (home, _) = home_with_documents(DOCUMENTS);
    home.ok(&["backup", "saved"]);
    fs::rename(home.path("data/nearfield.redb"), home.path("store")).unwrap();
    symlink("../store", home.path("data/nearfield.redb")).unwrap();
    home.fails(2, &["restore", "saved", "--replace"], &["symbolic link"]);
    assert!(fs::symlink_metadata(home.path("data/nearfield.redb")).unwrap().is_symlink());
    fs::remove_file(home.path("data/nearfield.redb")).unwrap();

    fs::rename(home.path("saved"), home.path("data/snapshots/saved")).unwrap();
    home.fails(2, &["restore", "data/snapshots/saved"], &["in the data directory"]);
    fs::rename(home.path("data/snapshots/saved"), home.path("saved")).unwrap();
    home.write("data/snapshots/holiday.jpg", "mine");
    home.ok(&["restore", "saved"]);
    assert_eq!(home.read("data/snapshots/holiday.jpg"), "mine");
    assert_eq!(count(&home), DOCUMENTS);
}
