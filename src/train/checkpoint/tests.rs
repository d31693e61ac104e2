use std::io::Write;

use tempfile::TempDir;

use super::*;

fn weights(step: u64) -> Vec<u8> {
    (0..3000u64).flat_map(|i| (i * i + step).to_le_bytes()).collect()
}

fn save(store: &mut Store, step: u64) -> Result<()> {
    let weights = weights(step);
    store.save(step, &[("weights", &|out| out.write_all(&weights)), ("state.json", &|out| write!(out, "{step}"))])
}

/// A run directory with the checkpoints 1 and 2, and its store.
fn run() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let mut store = Store::open(dir.path(), 2).unwrap();
    save(&mut store, 1).unwrap();
    save(&mut store, 2).unwrap();
    (dir, store)
}

fn assert_holds(checkpoint: &Checkpoint, step: u64) {
    assert_eq!(checkpoint.step(), step);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["weights", "state.json"]);
    assert_eq!(checkpoint.read("weights").unwrap(), weights(step));
    assert_eq!(fs::read(checkpoint.path("state.json").unwrap()).unwrap(), step.to_string().into_bytes());
}

#[test]
fn what_was_saved_is_read_back_and_the_oldest_are_dropped() {
    let (_dir, mut store) = run();
    for step in [3, 10] {
        save(&mut store, step).unwrap();
        let latest = store.latest().unwrap();
        assert!(latest.rejected.is_empty());
        assert_holds(&latest.checkpoint.unwrap(), step);
    }
    assert_eq!(store.steps().unwrap(), [3, 10], "by number, not by letter");
    assert_holds(&store.load(3).unwrap(), 3);
    assert!(store.load(2).unwrap_err().to_string().contains("step-2"));
    let mut names = list(&store.dir).unwrap();
    names.sort();
    assert_eq!(names, [".lock", "step-10", "step-3"]);
}

#[test]
fn an_empty_store_has_no_latest() {
    let dir = TempDir::new().unwrap();
    let latest = Store::open(&dir.path().join("new/run"), 1).unwrap().latest().unwrap();
    assert!(latest.checkpoint.is_none() && latest.rejected.is_empty());
}

/// Damages checkpoint 2 and expects it to be refused by name, for a reason that has `word` in it, and 1 to be used instead.
fn assert_refused(word: &str, damage: impl FnOnce(&Path)) {
    let (_dir, mut store) = run();
    damage(&store.path(2));
    let Latest { checkpoint, rejected } = store.latest().unwrap();
    assert_holds(&checkpoint.unwrap(), 1);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].name, "step-2");
    let reason = rejected[0].reason.to_string();
    assert!(reason.contains(word) && reason.contains("step-2"), "{reason}");
    save(&mut store, 2).unwrap();
    assert_holds(&store.latest().unwrap().checkpoint.unwrap(), 2);
}

fn edit_manifest(dir: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(dir.join(MANIFEST)).unwrap();
    assert!(text.contains(from));
    fs::write(dir.join(MANIFEST), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn damaged_files_are_refused() {
    assert_refused("weights: was truncated: 23000 bytes, 24000", |dir| {
        File::options().write(true).open(dir.join("weights")).unwrap().set_len(23000).unwrap();
    });
    assert_refused("has grown", |dir| {
        File::options().append(true).open(dir.join("state.json")).unwrap().write_all(b" ").unwrap();
    });
    assert_refused("weights: was altered", |dir| {
        let mut bytes = fs::read(dir.join("weights")).unwrap();
        bytes[12345] ^= 1;
        fs::write(dir.join("weights"), bytes).unwrap();
    });
    assert_refused("weights: No such file", |dir| fs::remove_file(dir.join("weights")).unwrap());
    assert_refused("manifest.json: No such file", |dir| fs::remove_file(dir.join(MANIFEST)).unwrap());
    assert_refused("manifest.json", |dir| {
        fs::remove_dir_all(dir).unwrap();
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("optimizer.pt"), "of another program").unwrap();
    });
}

#[test]
fn altered_manifests_are_refused() {
    assert_refused("was altered", |dir| edit_manifest(dir, "24000", "24001"));
    assert_refused("was altered", |dir| edit_manifest(dir, "\n", "\n "));
    assert_refused("format version 2", |dir| edit_manifest(dir, "\"version\": 1", "\"version\": 2"));
    assert_refused("format `of-others`", |dir| edit_manifest(dir, "ferromind-checkpoint", "of-others"));
    assert_refused("is not the manifest", |dir| fs::write(dir.join(MANIFEST), "{\"format\": \"ferro").unwrap());
    // A flipped bit anywhere in the manifest is seen.
    let (_dir, store) = run();
    let path = store.path(2).join(MANIFEST);
    let whole = fs::read(&path).unwrap();
    for bit in (0..whole.len() * 8).step_by(11) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        assert!(store.load(2).is_err(), "bit {bit}");
    }
}

#[test]
fn a_manifest_that_fits_its_hash_but_not_its_directory_is_refused() {
    let rewrite = |dir: &Path, step, names: &[&str]| {
        let entry = |name: &&str| Entry { name: name.to_string(), bytes: 1, blake3: blake3::hash(b"2").to_hex().to_string() };
        fs::write(dir.join(MANIFEST), Manifest::new(step, names.iter().map(entry).collect()).render().unwrap()).unwrap();
    };
    assert_refused("extra: No such file", |dir| rewrite(dir, 2, &["state.json", "extra"]));
    assert_refused("is of step 3, not 2", |dir| rewrite(dir, 3, &["state.json"]));
    assert_refused("cannot be in a checkpoint", |dir| rewrite(dir, 2, &["state.json", "state.json"]));
    assert_refused("cannot be in a checkpoint", |dir| rewrite(dir, 2, &["../step-1/state.json"]));
}

#[test]
fn a_directory_that_only_looks_like_a_checkpoint_is_named() {
    let (_dir, store) = run();
    fs::create_dir(store.dir.join("step-002")).unwrap();
    let latest = store.latest().unwrap();
    assert_holds(&latest.checkpoint.unwrap(), 2);
    assert_eq!(latest.rejected[0].name, "step-002");
}

#[test]
fn later_checkpoints_are_left_until_they_are_discarded() {
    let (_dir, mut store) = run();
    save(&mut store, 9).unwrap();
    save(&mut store, 5).unwrap();
    assert_eq!(store.steps().unwrap(), [2, 5, 9]);
    store.discard_after(2).unwrap();
    assert_eq!(store.steps().unwrap(), [2]);
    store.clear().unwrap();
    assert!(store.latest().unwrap().checkpoint.is_none());
}

#[test]
fn an_error_of_the_content_leaves_the_earlier_ones_and_nothing_else() {
    let (_dir, mut store) = run();
    let broken: Content<'_> = &|out| {
        out.write_all(&[7; 3 << 20])?;
        Err(io::ErrorKind::StorageFull.into())
    };
    for step in [2, 3] {
        let message = store.save(step, &[("weights", broken)]).unwrap_err().to_string();
        assert!(message.contains("weights") && message.contains(&format!("step {step} was not saved")), "{message}");
        assert_eq!(list(&store.dir).unwrap().len(), 3);
        assert_holds(&store.latest().unwrap().checkpoint.unwrap(), 2);
    }
    for bad in ["", "a/b", "manifest.json", ".hidden"] {
        assert!(matches!(store.save(3, &[(bad, &|_| Ok(()))]), Err(Error::Internal(_))));
    }
    assert!(matches!(store.save(3, &[("a", &|_| Ok(())), ("a", &|_| Ok(()))]), Err(Error::Internal(_))));
    assert_eq!(list(&store.dir).unwrap().len(), 3);
}

#[test]
fn a_store_is_held_by_one_at_a_time_and_keeps_at_least_one() {
    let (dir, store) = run();
    let message = Store::open(dir.path(), 2).unwrap_err().to_string();
    assert!(message.contains("another process is training"), "{message}");
    drop(store);
    Store::open(dir.path(), 2).unwrap();
    assert!(matches!(Store::open(dir.path(), 0), Err(Error::Config(_))));
}

#[test]
fn a_root_file_is_replaced_or_left() {
    let dir = TempDir::new().unwrap();
    replace_root_file(dir.path(), "config.json", &|out| out.write_all(b"old")).unwrap();
    let written = replace_root_file(dir.path(), "config.json", &|out| out.write_all(b"newer")).unwrap();
    assert_eq!((written.bytes, written.hash), (5, blake3::hash(b"newer")));
    let failed = replace_root_file(dir.path(), "config.json", &|_| Err(io::ErrorKind::StorageFull.into()));
    assert!(failed.unwrap_err().to_string().contains("config.json: "));
    assert_eq!(fs::read(dir.path().join("config.json")).unwrap(), b"newer");
    assert_eq!(list(dir.path()).unwrap(), ["config.json"]);
}
