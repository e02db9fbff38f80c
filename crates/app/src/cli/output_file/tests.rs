use std::io::Seek as _;

use tempfile::TempDir;

use super::*;

const RULES: OutputRules<'static> = OutputRules { data_dirs: &[], inputs: &[], existing: Existing::Keep };

const REPLACE: OutputRules<'static> = OutputRules { existing: Existing::Change, ..RULES };

fn write(path: &Path, rules: OutputRules<'_>, text: &str) -> anyhow::Result<()> {
    OutputFile::new(path, rules)?.write(|to| Ok(to.write_all(text.as_bytes())?))
}

fn rejection(path: &Path, rules: OutputRules<'_>) -> String {
    let error = OutputFile::new(path, rules).unwrap_err();
    assert!(error.is::<UsageError>(), "{error:#}");
    error.to_string()
}

#[test]
fn an_existing_file_is_replaced_only_by_force_and_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    write(&path, RULES, "old").unwrap();
    assert!(rejection(&path, RULES).contains("--force"));
    let failed = OutputFile::new(&path, REPLACE).unwrap().write_verified(
        |to| Ok(to.write_all(b"new")?),
        |from| {
            let mut text = String::new();
            from.read_to_string(&mut text)?;
            assert_eq!(text, "new", "the complete file is verified");
            Err::<(), _>(anyhow::anyhow!("it is damaged"))
        },
    );
    assert!(failed.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&path, REPLACE, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left");

    // Created by another program after the check.
    let late = dir.path().join("late");
    let output = OutputFile::new(&late, RULES).unwrap();
    fs::write(&late, "precious").unwrap();
    assert!(output.write(|to| Ok(to.write_all(b"new")?)).is_err());
    assert!(
        OutputFile { name: String::new(), place: Place::File { path: late.clone(), exists: false } }
            .create()
            .is_err()
    );
    assert_eq!(fs::read(&late).unwrap(), b"precious");
}

#[test]
fn directories_data_directories_and_inputs_are_rejected() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(rejection(dir.path(), RULES).contains("is a directory"));
    assert!(rejection(Path::new("-"), RULES).contains("standard output"));
    // The configured directory need not have a store yet, and another one is recognised by its store.
    fs::create_dir_all(at("new")).unwrap();
    fs::create_dir_all(at("other/snapshots")).unwrap();
    fs::write(at("other/nearfield.redb"), "store").unwrap();
    let data_dir = at("new");
    let rules = OutputRules { data_dirs: &[&data_dir], ..REPLACE };
    for name in ["new/backup", "other/nearfield.redb", "other/backup", "other/snapshots/1", "new/../other/a"]
    {
        assert!(rejection(&at(name), rules).contains("in the data directory"), "{name}");
    }
    fs::write(at("input"), "rows").unwrap();
    fs::hard_link(at("input"), at("same")).unwrap();
    let input = FileIdentity::of_input(at("input").to_str().unwrap()).unwrap();
    for name in ["input", "same"] {
        let rules = OutputRules { inputs: std::slice::from_ref(&input), ..REPLACE };
        assert!(rejection(&at(name), rules).contains("read by the same command"), "{name}");
    }
    assert_eq!(fs::read(at("input")).unwrap(), b"rows");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_kept() {
    use std::os::unix::fs::symlink;

    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("elsewhere")).unwrap();
    symlink("elsewhere/file", at("second")).unwrap();
    symlink("second", at("first")).unwrap();
    // First the file does not exist.
    for text in ["one", "two"] {
        write(&at("first"), REPLACE, text).unwrap();
        assert_eq!(fs::read_to_string(at("elsewhere/file")).unwrap(), text);
        assert!(fs::symlink_metadata(at("first")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(at("second")).unwrap().is_symlink());
    }
    assert!(rejection(&at("first"), RULES).contains("--force"));
    OutputFile::new(&at("first"), REPLACE).unwrap().create().unwrap().write_all(b"three").unwrap();
    assert_eq!(fs::read(at("elsewhere/file")).unwrap(), b"three");
    // A link into a data directory.
    fs::write(at("elsewhere/nearfield.redb"), "store").unwrap();
    assert!(rejection(&at("first"), REPLACE).contains("in the data directory"));
    symlink("loop", at("loop")).unwrap();
    assert!(OutputFile::new(&at("loop"), REPLACE).is_err());
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_written_to_as_they_are() {
    use std::os::unix::fs::FileTypeExt as _;

    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for is_intact in [true, false] {
        let reader = {
            let pipe = pipe.clone();
            thread::spawn(move || fs::read(pipe).unwrap())
        };
        let written = OutputFile::new(&pipe, RULES).unwrap().write_verified(
            |to| Ok(to.write_all(&[7; 100_000])?),
            |from| {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes)?;
                anyhow::ensure!(is_intact, "it is damaged");
                Ok(bytes.len())
            },
        );
        assert_eq!(written.ok(), is_intact.then_some(((), 100_000)));
        assert_eq!(reader.join().unwrap(), vec![7; 100_000]);
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
    // A reader that verifies only the beginning does not keep the rest from being written.
    let reader = {
        let pipe = pipe.clone();
        thread::spawn(move || fs::read(pipe).unwrap().len())
    };
    OutputFile::new(&pipe, RULES)
        .unwrap()
        .write_verified(|to| Ok(to.write_all(&[7; 1 << 20])?), |_| Ok(()))
        .unwrap();
    assert_eq!(reader.join().unwrap(), 1 << 20);
    if cfg!(target_os = "linux") {
        let full = write(Path::new("/dev/full"), RULES, "text").unwrap_err();
        assert!(format!("{full:#}").contains("/dev/full"), "{full:#}");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        write(Path::new("/dev/null"), RULES, "text").unwrap();
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_an_output_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("written"), RULES, "text").unwrap();
    OutputFile::new(&at("created"), RULES).unwrap().create().unwrap();
    OutputFile::new(&at("appended"), RULES).unwrap().append().unwrap();
    for name in ["written", "created", "appended"] {
        assert_eq!(fs::metadata(at(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
}

#[test]
fn unfinished_files_of_killed_commands_are_removed_and_others_kept() {
    let dir = TempDir::new().unwrap();
    let killed = dir.path().join(format!("{UNFINISHED_PREFIX}killed"));
    fs::write(&killed, "half").unwrap();
    let mut running = unfinished_file(dir.path()).unwrap();
    running.write_all(b"running").unwrap();
    write(&dir.path().join("file"), RULES, "text").unwrap();
    assert!(!killed.exists());
    running.rewind().unwrap();
    assert_eq!(fs::read(running.path()).unwrap(), b"running");
}
