//! Files that are there whole or not at all.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;

/// Who may read a file, as its mode: all whom the umask allows.
pub(super) const READABLE: u32 = 0o666;
/// Its owner alone.
pub(super) const PRIVATE: u32 = 0o600;

/// Writes beside the file, syncs, and renames: the file is the old one or the whole new one.
pub(super) fn publish<T>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = || path.display().to_string();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nearfield-unfinished-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    let mut writer = BufWriter::new(builder.tempfile_in(directory).with_context(name)?);
    let written = write(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error).with_context(name)?;
    file.as_file().sync_all().with_context(name)?;
    file.persist(path).map_err(|error| error.error).with_context(name)?;
    Ok(written)
}
