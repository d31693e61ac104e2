//! Checkpoints of a run: whole directories `RUN/checkpoints/step-N/`, each there entirely or not at all.
//!
//! A save writes `.step-N.partial/` with a manifest of sizes and hashes, syncs every file and the directory, renames it to
//! `step-N`, and syncs `checkpoints/`. Only then are old ones dropped: renamed to `.step-N.deleted` first, so that a half-deleted
//! one never looks whole. Saving a step again moves the old directory to `.step-N.replaced`; whoever opens the store after a crash
//! between the two renames moves it back. The store knows nothing of models: a checkpoint is named files.

pub mod durable;
mod faults;
mod manifest;
#[cfg(test)]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

pub use durable::{Content, Written, replace_root_file};
pub use manifest::Checkpoint;
use manifest::{Entry, MANIFEST, Manifest, is_file_name, step_of};

use crate::{Error, Result};

const PARTIAL: &str = "partial";
const REPLACED: &str = "replaced";
const DELETED: &str = "deleted";

/// The checkpoints of one run directory, held by one process at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    keep: usize,
    _lock: Lock,
}

/// A locked file; the system unlocks it however the process ends.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing alone would leave it to a child process that was forked in between, until that starts its program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// A checkpoint that was not used, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The name of its directory.
    pub name: String,
    /// What is wrong with it; the message begins with the path of the file at fault.
    pub reason: Error,
}

/// What [`Store::latest`] found.
#[derive(Debug)]
pub struct Latest {
    /// The newest checkpoint that is whole, if there is any.
    pub checkpoint: Option<Checkpoint>,
    /// Those that are newer but were refused, newest first: to be told to the user.
    pub rejected: Vec<Rejected>,
}

impl Store {
    /// Opens `run_dir` for a training process, creating what is missing, and clears away what an interrupted save left there.
    ///
    /// `keep` is how many checkpoints a save leaves, the new one included. Errors: `keep` is 0; another process has the store open;
    /// the directory cannot be written.
    pub fn open(run_dir: &Path, keep: usize) -> Result<Self> {
        if keep == 0 {
            return Err(Error::config("0 checkpoints to keep: expected at least 1, the one that a stopped run resumes from"));
        }
        let dir = run_dir.join("checkpoints");
        if !dir.is_dir() {
            fs::create_dir_all(run_dir).map_err(|error| Error::io(run_dir, error))?;
            durable::create_dir(&dir)?;
            durable::sync_dir(run_dir)?;
        }
        let store = Self { _lock: lock(&dir)?, dir, keep };
        store.sweep()?;
        sweep_root(run_dir)?;
        Ok(store)
    }

    /// The same store, which keeps another number of checkpoints from its next save on.
    pub fn keeping(self, keep: usize) -> Self {
        Self { keep: keep.max(1), ..self }
    }

    /// Saves `files`, pairs of a name and what writes its content, as the checkpoint of `step`, and drops the oldest beyond `keep`.
    ///
    /// A checkpoint of the same step is replaced; one of a later step is left (see [`discard_after`](Self::discard_after)). On an
    /// error, such as a full disk, the message names the file, nothing of the new checkpoint is left, and the earlier ones are whole.
    pub fn save(&mut self, step: u64, files: &[(&str, Content<'_>)]) -> Result<()> {
        let saved = self.write(step, files).map_err(|error| match error {
            Error::Io { path, cause } => {
                let message = format!("{cause} (the checkpoint of step {step} was not saved; the earlier ones are whole)");
                Error::io(path, io::Error::new(cause.kind(), message))
            }
            other => other,
        });
        let done = saved.and_then(|()| {
            let earlier = self.steps()?.into_iter().rev().filter(|&other| other <= step);
            let mut surplus: Vec<u64> = earlier.skip(self.keep).collect();
            surplus.reverse();
            self.discard(&surplus)
        });
        if done.is_err() {
            let _ = self.sweep(); // as far as the failing disk allows; the next one to open the store does the rest
        }
        done
    }

    /// The newest checkpoint that is whole, and the newer ones that had to be refused.
    ///
    /// Errors only where the directory itself cannot be listed: what is wrong with one checkpoint is told in [`Latest::rejected`].
    pub fn latest(&self) -> Result<Latest> {
        let strangers = self.names()?.into_iter().filter(|name| name.starts_with("step-") && step_of(name).is_none());
        let mut rejected: Vec<Rejected> = strangers
            .map(|name| Rejected { reason: Error::format(self.dir.join(&name), "is not named after a step"), name })
            .collect();
        for step in self.steps()?.into_iter().rev() {
            match self.load(step) {
                Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), rejected }),
                Err(reason) => rejected.push(Rejected { name: format!("step-{step}"), reason }),
            }
        }
        Ok(Latest { checkpoint: None, rejected })
    }

    /// The checkpoint of `step`; an error says what is wrong with it, or that there is none.
    pub fn load(&self, step: u64) -> Result<Checkpoint> {
        Checkpoint::open(self.path(step))
    }

    /// The steps that have a directory, ascending; whether they are whole is not looked at.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> = self.names()?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// Drops all checkpoints of a later step, whole or not. A run that resumes at `step` calls this, so that what an abandoned
    /// future has left is never taken for its own.
    pub fn discard_after(&mut self, step: u64) -> Result<()> {
        let later: Vec<u64> = self.steps()?.into_iter().filter(|&other| other > step).collect();
        self.discard(&later)
    }

    /// Drops all checkpoints: for a run that begins anew in a used directory.
    pub fn clear(&mut self) -> Result<()> {
        self.discard(&self.steps()?)
    }

    fn write(&self, step: u64, files: &[(&str, Content<'_>)]) -> Result<()> {
        let (partial, path, replaced) = (self.hidden(step, PARTIAL), self.path(step), self.hidden(step, REPLACED));
        durable::create_dir(&partial)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(files.len());
        for &(name, content) in files {
            if !is_file_name(name) || entries.iter().any(|entry| entry.name == name) {
                return Err(Error::Internal(format!("`{name}` cannot be the name of a file in a checkpoint, or is there twice")));
            }
            let Written { bytes, hash } = durable::write_file(&partial.join(name), content)?;
            entries.push(Entry { name: name.into(), bytes, blake3: hash.to_hex().to_string() });
        }
        let manifest = Manifest::new(step, entries).render()?;
        durable::write_file(&partial.join(MANIFEST), &|out| out.write_all(&manifest))?;
        durable::sync_dir(&partial)?;
        let again = exists(&path)?;
        if again {
            durable::rename(&path, &replaced)?;
        }
        durable::rename(&partial, &path)?;
        durable::sync_dir(&self.dir)?;
        if again {
            durable::remove_dir(&replaced)?;
        }
        Ok(())
    }

    fn discard(&self, steps: &[u64]) -> Result<()> {
        for &step in steps {
            durable::rename(&self.path(step), &self.hidden(step, DELETED))?;
        }
        if !steps.is_empty() {
            durable::sync_dir(&self.dir)?;
        }
        steps.iter().try_for_each(|&step| durable::remove_dir(&self.hidden(step, DELETED)))
    }

    /// Undoes what an interrupted save left: removes what is hidden, but moves back what was replaced by nothing.
    fn sweep(&self) -> Result<()> {
        for name in self.names()? {
            let Some((step, state)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else { continue };
            let Some(step) = step_of(step) else { continue };
            let (hidden, path) = (self.hidden(step, state), self.path(step));
            match state {
                REPLACED if !exists(&path)? => {
                    durable::rename(&hidden, &path)?;
                    durable::sync_dir(&self.dir)?;
                }
                PARTIAL | DELETED | REPLACED => durable::remove_dir(&hidden)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step}"))
    }

    fn hidden(&self, step: u64, state: &str) -> PathBuf {
        self.dir.join(format!(".step-{step}.{state}"))
    }

    fn names(&self) -> Result<Vec<String>> {
        list(&self.dir)
    }
}

/// Removes the half-written replacements of root files (see [`replace_root_file`]).
fn sweep_root(run_dir: &Path) -> Result<()> {
    for name in list(run_dir)?.iter().filter(|name| name.starts_with('.') && name.ends_with(".partial")) {
        let path = run_dir.join(name);
        if path.is_file() {
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<Lock> {
    let path = dir.join(".lock");
    let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            let message = "another process is training in this directory: stop it, or choose another one";
            Err(Error::io(dir, io::Error::new(io::ErrorKind::WouldBlock, message)))
        }
        // Some network file systems know no locks; one careful user at a time is as good there.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Lock(file)),
        Err(TryLockError::Error(error)) => Err(Error::io(&path, error)),
    }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = entries.map_err(|error| Error::io(dir, error))?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| Error::io(path, error))
}
