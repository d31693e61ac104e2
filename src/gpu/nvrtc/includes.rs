//! Which headers a source can see: their content belongs to the key of a cached kernel.
//!
//! Directives are read without a preprocessor, so a header behind an `#if` counts whether or not it is taken: a cached kernel may be
//! compiled once more than needed, but never once too few.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Source;

/// Feeds every header that `source` includes, directly or not, into the hash. `false` if a directive names its header by a macro,
/// so that nobody knows without preprocessing.
///
/// NVRTC prefers headers in memory, then those beside the file that includes them (of the source, in the folder that its name has),
/// then `folders`. Where several on disk have the name, all count. Headers that are found nowhere are those built into NVRTC, or a
/// mistake that the compiler will tell.
pub(super) fn hash_headers(source: &Source<'_>, folders: &[PathBuf], hasher: &mut blake3::Hasher) -> bool {
    let beside_source = Path::new(source.name).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut texts = vec![(beside_source.clone(), source.text.to_owned())];
    while let Some((folder, text)) = texts.pop() {
        for name in included(&text) {
            let Some(name) = name else { return false };
            if let Some((_, text)) = source.headers.iter().find(|header| header.0 == name) {
                if seen.insert(PathBuf::from(&name)) {
                    hash_part(hasher, name.as_bytes(), text.as_bytes());
                    texts.push((beside_source.clone(), (*text).to_owned()));
                }
                continue;
            }
            let places = [&folder, &beside_source].into_iter().chain(folders);
            // A device or pipe may never end.
            for path in places.map(|folder| folder.join(&name)).filter(|path| path.is_file()) {
                if !seen.contains(&path)
                    && let Ok(bytes) = std::fs::read(&path)
                {
                    hash_part(hasher, path.as_os_str().as_encoded_bytes(), &bytes);
                    texts.push((
                        path.parent().map(Path::to_path_buf).unwrap_or_default(),
                        String::from_utf8_lossy(&bytes).into_owned(),
                    ));
                    seen.insert(path);
                }
            }
        }
    }
    true
}

/// Adds two texts so that no other two give the same hash.
pub(super) fn hash_part(hasher: &mut blake3::Hasher, name: &[u8], content: &[u8]) {
    for part in [name, content] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
}

/// The names in `#include` directives; `None` for one that is a macro.
fn included(text: &str) -> Vec<Option<String>> {
    let directives = text.lines().filter_map(|line| line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include"));
    directives
        .map(|rest| {
            let rest = rest.trim_start();
            let closing = match rest.chars().next()? {
                '"' => '"',
                '<' => '>',
                _ => return None,
            };
            rest[1..].split_once(closing).map(|(name, _)| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_in_any_spelling() {
        let text = "#include \"a.cuh\"\n  #  include <b/c.h> // why\nint include;\n#include NAME\n#include \"open\n#include";
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(included(text), [name("a.cuh"), name("b/c.h"), None, None, None]);
    }

    #[test]
    fn headers_on_disk_and_in_memory_count_and_so_do_theirs() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a.cuh", "#include \"deep/b.cuh\"");
        write("deep/b.cuh", "#include \"c.cuh\"\n#include \"b.cuh\"");
        write("deep/c.cuh", "1");
        write("unused.cuh", "1");
        write("source/beside.cuh", "1");
        let name = root.path().join("source/k.cu");
        let hash = |inner: &'static str, text: &'static str| {
            let headers = [("memory.cuh", inner)];
            let source = Source { name: name.to_str().unwrap(), text, headers: &headers };
            let mut hasher = blake3::Hasher::new();
            hash_headers(&source, &[root.path().into()], &mut hasher).then(|| hasher.finalize())
        };
        let text =
            "#include \"memory.cuh\"\n#include \"a.cuh\"\n#include <built_in.h>\n#include \"beside.cuh\"\n#include \"/dev/zero\"";
        let first = hash("1", text);
        assert!(first.is_some());
        assert_eq!(hash("1", text), first);
        assert_ne!(hash("2", text), first, "a header in memory");
        write("unused.cuh", "2");
        assert_eq!(hash("1", text), first, "a header that nobody includes");
        write("deep/c.cuh", "2");
        assert_ne!(hash("1", text), first, "a header beside the one that includes it");
        let second = hash("1", text);
        write("source/beside.cuh", "2");
        assert_ne!(hash("1", text), second, "a header beside the source");
        assert_eq!(hash("1", "#include NAME"), None);
        assert_eq!(hash("#include NAME", text), None);
    }
}
