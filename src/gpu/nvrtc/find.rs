//! Where NVRTC is looked for, in this order:
//!
//! 1. `FERROMIND_NVRTC`, a library or the folder that holds it: if it is set, nothing else is tried;
//! 2. the system's loader (`LD_LIBRARY_PATH`, `/etc/ld.so.conf`);
//! 3. a CUDA toolkit: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda*`, the newest first;
//! 4. a Python environment `.venv` in the working directory, the program's or the crate's, or above one of them: where
//!    `scripts/install_nvrtc` puts it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::library::{Library, NAMES};
use crate::error::{Error, Result};

/// The variable that overrides the search.
pub const VARIABLE: &str = "FERROMIND_NVRTC";
const INSTALL: &str =
    "run scripts/install_nvrtc (no GPU or CUDA toolkit needed), or set FERROMIND_NVRTC to libnvrtc.so.13 or its folder";

/// What a search starts from: the process's surroundings, or a test's.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `FERROMIND_NVRTC`
    pub variable: Option<OsString>,
    /// Whether to ask the system's loader.
    pub loader: bool,
    /// Roots of CUDA toolkits.
    pub toolkits: Vec<PathBuf>,
    /// Folders in and above which a `.venv` may lie.
    pub projects: Vec<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let folder_of_program = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf()));
        let projects = [std::env::current_dir().ok(), folder_of_program, Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")))];
        let variables = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set_variable).map(PathBuf::from);
        Self {
            variable: set_variable(VARIABLE),
            loader: true,
            toolkits: variables.chain(installed_toolkits(Path::new("/usr/local"))).collect(),
            projects: projects.into_iter().flatten().collect(),
        }
    }

    /// Opens the first NVRTC that is there and can be used. The error tells every place that was looked at, and what is wrong with
    /// those that had something.
    pub fn open(&self) -> Result<Library> {
        let mut tried = Vec::new();
        for Candidate { place, paths } in self.candidates() {
            if paths.is_empty() {
                tried.push(format!("{place}: nothing"));
            }
            for path in paths {
                let reason = match Library::open(&path) {
                    Ok(library) => return Ok(library),
                    Err(reason) => reason,
                };
                // The loader's own words begin with the path.
                let path = path.display().to_string();
                let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(&reason);
                tried.push(format!("{place}: {path}: {reason}"));
            }
        }
        Err(Error::Missing { what: "NVRTC, NVIDIA's run-time compiler,".to_owned(), looked: tried, remedy: INSTALL.to_owned() })
    }

    fn candidates(&self) -> Vec<Candidate> {
        if let Some(value) = &self.variable {
            let path = PathBuf::from(value);
            let paths = if path.is_dir() { libraries_in(&path) } else { vec![path.clone()] };
            let place = if paths.is_empty() { format!("{VARIABLE}, {}", path.display()) } else { VARIABLE.to_owned() };
            return vec![Candidate { place, paths }];
        }
        let mut candidates = Vec::new();
        if self.loader {
            candidates.push(Candidate { place: "the system's loader".to_owned(), paths: NAMES.map(PathBuf::from).to_vec() });
        }
        for root in &self.toolkits {
            let folders = ["lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib"].map(|folder| root.join(folder));
            candidates.push(Candidate::in_folders(format!("CUDA toolkit {}", root.display()), &folders));
        }
        let mut seen = BTreeSet::new();
        for environment in self.projects.iter().flat_map(|project| project.ancestors()).map(|folder| folder.join(".venv")) {
            if environment.is_dir() && seen.insert(environment.clone()) {
                // The second is the layout of the wheels of CUDA 12.
                let layouts = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];
                let sites = site_packages(&environment);
                let folders: Vec<PathBuf> = sites.iter().flat_map(|site| layouts.map(|layout| site.join(layout))).collect();
                candidates.push(Candidate::in_folders(format!("Python environment {}", environment.display()), &folders));
            }
        }
        if seen.is_empty() {
            let begin =
                self.projects.first().map_or_else(|| "the working directory".to_owned(), |project| project.display().to_string());
            candidates.push(Candidate { place: format!("a Python environment .venv in or above {begin}"), paths: Vec::new() });
        }
        candidates
    }
}

/// A place and the libraries that are there.
struct Candidate {
    place: String,
    paths: Vec<PathBuf>,
}

impl Candidate {
    fn in_folders(place: String, folders: &[PathBuf]) -> Self {
        Self { place, paths: folders.iter().flat_map(|folder| libraries_in(folder)).collect() }
    }
}

fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect()
}

/// `lib/python3.*/site-packages` of an environment, in the order of their names.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    children(&environment.join("lib"), "python3").into_iter().map(|python| python.join("site-packages")).collect()
}

/// `cuda`, which is the one that the administrator chose, then `cuda-13.0` and the like, the newest first.
fn installed_toolkits(folder: &Path) -> Vec<PathBuf> {
    let version = |path: &PathBuf| -> Vec<u32> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_start_matches("cuda-").split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    let mut versions = children(folder, "cuda-");
    versions.sort_by_key(|path| std::cmp::Reverse(version(path)));
    std::iter::once(folder.join("cuda")).filter(|path| path.is_dir()).chain(versions).collect()
}

/// Folders in `folder` whose names begin so, sorted.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found
}

fn set_variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file of this name, which is no library.
    fn plant(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "not a library").unwrap();
        path
    }

    fn paths(surroundings: &Surroundings) -> Vec<PathBuf> {
        surroundings.candidates().into_iter().flat_map(|candidate| candidate.paths).collect()
    }

    #[test]
    fn places_are_tried_in_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let toolkit_64 = plant(at("toolkit/lib64/libnvrtc.so.13"));
        let toolkit_old = plant(at("toolkit/lib64/libnvrtc.so.12"));
        let environment = plant(at("project/.venv/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
        let outer = plant(at(".venv/lib/python3.9/site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
        fs::create_dir_all(at("project/src/deep")).unwrap();
        let mut surroundings = Surroundings {
            variable: None,
            loader: true,
            toolkits: vec![at("absent"), at("toolkit")],
            projects: vec![at("project/src/deep"), at("project")],
        };
        let loader = NAMES.map(PathBuf::from).to_vec();
        assert_eq!(paths(&surroundings), [loader, vec![toolkit_64, toolkit_old.clone(), environment, outer]].concat());

        surroundings.variable = Some(toolkit_old.clone().into());
        assert_eq!(paths(&surroundings), [toolkit_old], "a variable that is set rules alone");
        surroundings.variable = Some(at("toolkit/lib64").into());
        assert_eq!(paths(&surroundings).len(), 2, "a folder is looked into");
    }

    #[test]
    fn toolkits_newest_first_by_number() {
        let root = tempfile::tempdir().unwrap();
        for name in ["cuda-9.2", "cuda-12.10", "cuda-12.9", "cuda-13", "cuda", "other"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let names: Vec<_> = installed_toolkits(root.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["cuda", "cuda-13", "cuda-12.10", "cuda-12.9", "cuda-9.2"]);
    }

    #[test]
    fn nothing_found_tells_where_it_was_looked_for_and_what_to_run() {
        let root = tempfile::tempdir().unwrap();
        let broken = plant(root.path().join("toolkit/lib64/libnvrtc.so.13"));
        let surroundings =
            Surroundings { toolkits: vec![root.path().join("toolkit")], projects: vec![root.path().into()], ..Default::default() };
        let message = surroundings.open().err().unwrap().to_string();
        for part in [broken.to_str().unwrap(), ".venv", "scripts/install_nvrtc", "FERROMIND_NVRTC"] {
            assert!(message.contains(part), "no {part} in: {message}");
        }
        let absent = Surroundings { variable: Some("/nowhere/libnvrtc.so".into()), ..surroundings };
        let message = absent.open().err().unwrap().to_string();
        assert!(message.contains("FERROMIND_NVRTC: /nowhere/libnvrtc.so: ") && !message.contains("toolkit/"), "{message}");
    }

    /// A library that opens but is not NVRTC: the C library, which every process here has open.
    #[test]
    fn a_missing_symbol_is_an_error() {
        let surroundings = Surroundings { variable: Some("libc.so.6".into()), ..Default::default() };
        let message = surroundings.open().err().unwrap().to_string();
        assert!(message.contains("nvrtcVersion"), "{message}");
    }
}
