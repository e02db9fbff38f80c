//! Files that are replaced atomically.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;

/// File mode that leaves access to the umask.
pub(super) const MODE_DEFAULT: u32 = 0o666;
/// File mode for the owner only.
pub(super) const MODE_OWNER_ONLY: u32 = 0o600;

/// Writes a temporary file next to `path`, syncs it, lets `verify` check it, and renames it: `path` is the old file
/// or the complete new one. A file that `verify` rejects is discarded.
pub(super) fn write_atomically<T, U>(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
    verify: impl FnOnce(&Path, T) -> anyhow::Result<U>,
) -> anyhow::Result<U> {
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
    let value = write(&mut writer)?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error).with_context(name)?;
    file.as_file().sync_all().with_context(name)?;
    let value = verify(file.path(), value)?;
    file.persist(path).map_err(|error| error.error).with_context(name)?;
    // The new name is durable once its directory is synced. Only Unix can sync directories.
    #[cfg(unix)]
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).with_context(name)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_old_file_when_the_new_one_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let make = |text: &'static str| move |to: &mut dyn Write| Ok(to.write_all(text.as_bytes())?);
        write_atomically(&path, MODE_DEFAULT, make("old"), |_, ()| Ok(())).unwrap();
        let rejected = write_atomically(&path, MODE_DEFAULT, make("new"), |written, ()| {
            assert_eq!(std::fs::read(written)?, b"new", "the complete file can be verified");
            Err::<(), _>(anyhow::anyhow!("it is damaged"))
        });
        assert!(rejected.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
