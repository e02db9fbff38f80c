//! deploy/compose.yaml matches the cluster script, and references only what exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use yaml_serde::Value;

/// The compose keys that the services use.
const SERVICE_KEYS: &[&str] = &[
    "build",
    "command",
    "depends_on",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "restart",
    "volumes",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The file with merge keys (`<<`) resolved. The parser rejects duplicate keys.
fn compose() -> Value {
    let mut compose: Value =
        yaml_serde::from_str(&fs::read_to_string(root().join("deploy/compose.yaml")).unwrap()).unwrap();
    compose.apply_merge().unwrap();
    compose
}

fn keys(mapping: &Value) -> BTreeSet<&str> {
    mapping.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap()).collect()
}

fn words(list: &Value) -> Vec<String> {
    list.as_sequence().unwrap().iter().map(|word| word.as_str().expect("a string").to_owned()).collect()
}

/// A command without its directories, which differ between installations.
fn without_directories(command: Vec<String>) -> Vec<String> {
    let mut command: Vec<String> = command
        .into_iter()
        .map(|word| if word.starts_with('/') { word.rsplit('/').next().unwrap().to_owned() } else { word })
        .collect();
    if let Some(dir) = command.iter().position(|word| word == "--dir") {
        command.drain(dir..dir + 2);
    }
    command
}

/// The commands that the script runs; `None`, with a message, if Python is not installed.
fn script_commands() -> Option<Vec<Vec<String>>> {
    let script = root().join("tools/redis_cluster.py");
    let Ok(output) = Command::new("python3").arg(script).arg("commands").output() else {
        eprintln!("SKIPPED: python3 is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    // Words are quoted as in a shell; only the empty word needs it.
    let unquote = |word: &str| if word == "''" { String::new() } else { word.to_owned() };
    let commands = printed.lines().map(|line| without_directories(line.split(' ').map(unquote).collect()));
    Some(commands.collect())
}

#[test]
fn compose_services_are_complete_and_reference_existing_volumes_and_files() {
    let compose = compose();
    let services = &compose["services"];
    let declared = keys(&compose["volumes"]);
    let names = keys(services);
    assert_eq!(names.len(), 9, "six nodes, the job that joins them, the model, Nearfield: {names:?}");
    for name in &names {
        let service = &services[*name];
        let unknown: Vec<_> = keys(service).into_iter().filter(|key| !SERVICE_KEYS.contains(key)).collect();
        assert!(unknown.is_empty(), "{name} has unknown keys: {unknown:?}");
        assert!(service["image"].is_string(), "{name} has no image");
        assert!(!words(&service["command"]).is_empty(), "{name}");
        if let Some(needed) = service.get("depends_on") {
            for other in keys(needed) {
                assert!(names.contains(other), "{name} depends on {other}");
                let condition = needed[other]["condition"].as_str().unwrap();
                let can_be_met = match condition {
                    "service_healthy" => services[other].get("healthcheck").is_some(),
                    "service_completed_successfully" => {
                        services[other].get("restart").is_none_or(|restart| restart == "no")
                    }
                    _ => false,
                };
                assert!(can_be_met, "{name} waits for {other}: {condition}");
            }
        }
        for volume in service.get("volumes").map(words).unwrap_or_default() {
            let (volume, path) = volume.split_once(':').unwrap();
            assert!(declared.contains(volume) && path.starts_with('/'), "{name}: {volume}:{path}");
        }
        if let Some(build) = service.get("build") {
            let context = root().join("deploy").join(build["context"].as_str().unwrap());
            assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{name}");
        }
    }
}

#[test]
fn compose_starts_the_cluster_with_the_commands_of_the_script() {
    let Some(mut commands) = script_commands() else { return };
    let compose = compose();
    let services = &compose["services"];
    let join = commands.pop().unwrap();
    assert_eq!(commands.len(), 6);
    for (number, command) in commands.iter().enumerate() {
        let node = &services[format!("redis-{}", number + 1).as_str()];
        let node_command = [words(&node["entrypoint"]), words(&node["command"])].concat();
        assert_eq!(&without_directories(node_command), command);
        let port = command[command.iter().position(|word| word == "--port").unwrap() + 1].clone();
        let health_check = words(&node["healthcheck"]["test"]);
        assert!(health_check.contains(&port), "{health_check:?} does not check port {port}");
    }
    let line = words(&services["join"]["command"]).pop().unwrap();
    let (_, join_command) = line.split_once(" || ").unwrap();
    assert_eq!(without_directories(join_command.split(' ').map(str::to_owned).collect()), join);

    let primaries = join.iter().filter(|word| word.contains(':')).take(3).cloned().collect::<Vec<_>>();
    let store = services["nearfield"]["environment"]["NEARFIELD_STORE"].as_str().unwrap();
    assert_eq!(store, format!("redis-cluster://{}", primaries.join(",")));
}
