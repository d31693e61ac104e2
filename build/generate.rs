//! Writes Rust for the prototypes: a module for each `.cu` file, with its text, its hash and a `call!` for each kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Plan;
use super::prototype::{self, ELEMENT, Kind, Parameter, Prototype};

/// A file under `kernels/`: its path from there, with `/` between folders, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

/// The Rust text for these files, or what is wrong with them: `kernels/axpy.cu:12: …`.
pub fn generate(sources: &[File], headers: &[File]) -> Result<String, String> {
    let mut root = Folder::default();
    for source in sources {
        let stem = source.path.strip_suffix(".cu").unwrap_or(&source.path);
        let mut names = stem.split('/').map(|name| identifier(name, &source.path)).collect::<Result<Vec<_>, _>>()?;
        let file = names.pop().unwrap_or_default();
        let folder = names.into_iter().fold(&mut root, |folder, name| folder.folders.entry(name).or_default());
        folder.files.insert(file, module(source, headers)?);
    }
    let mut out =
        "/// Every header, by the name that sources include it by.\npub static HEADERS: &[(&str, &str)] = &[\n".to_owned();
    for header in headers {
        out += &format!("    ({:?}, {}),\n", header.path, embedded(&header.path));
    }
    out += "];\n\n/// Every source.\npub static SOURCES: &[&Source<'static>] = &[\n";
    root.list(&mut out, "");
    out += "];\n";
    root.write(&mut out);
    Ok(out)
}

/// Modules by their names, as the folders and files lie.
#[derive(Default)]
struct Folder {
    folders: BTreeMap<String, Folder>,
    files: BTreeMap<String, Module>,
}

impl Folder {
    fn list(&self, out: &mut String, path: &str) {
        for name in self.files.keys() {
            *out += &format!("    &{path}{name}::SOURCE,\n");
        }
        for (name, folder) in &self.folders {
            folder.list(out, &format!("{path}{name}::"));
        }
    }

    fn write(&self, out: &mut String) {
        for (name, module) in &self.files {
            *out += &format!("\n/// `kernels/{}`\npub mod {name} {{\n{}}}\n", module.path, module.body);
        }
        for (name, folder) in &self.folders {
            *out += &format!("\n/// The files of this folder.\npub mod {name} {{\n");
            folder.write(out);
            *out += "}\n";
        }
    }
}

struct Module {
    path: String,
    body: String,
}

fn module(source: &File, headers: &[File]) -> Result<Module, String> {
    let path = &source.path;
    let place = |line: usize, message: &str| format!("kernels/{path}:{line}: {message}");
    let kernels = prototype::parse(&source.text).map_err(|failure| place(failure.line, &failure.message))?;
    let mut body = format!(
        "    #[allow(unused_imports)] // not every kernel takes everything\n    \
             use crate::gpu::{{ElementSlice, ElementSliceMut, Slice, SliceMut, TensorMap, kernels::{{HEADERS, call}}, nvrtc::Source}};\n    \
             /// The file, to be compiled.\n    \
             pub static SOURCE: Source<'static> = Source {{ name: \"kernels/{path}\", text: {}, headers: HEADERS }};\n    \
             /// BLAKE3 of the file and of all headers, each as its name and its text.\n    \
             pub const HASH: &str = \"{}\";\n",
        embedded(path),
        hash(source, headers)
    );
    let mut types = BTreeSet::new();
    for kernel in &kernels {
        let name = camel_case(&kernel.name);
        let call = call(kernel, &name).map_err(|message| place(kernel.line, &message))?;
        if !types.insert(name.clone()) {
            return Err(place(kernel.line, &format!("kernel `{}`: another kernel is called `{name}`", kernel.name)));
        }
        let plan = kernel.launch.as_deref().ok_or_else(|| {
            place(kernel.line, &format!("kernel `{}`: no comment `// launch: grid …, block …` above it", kernel.name))
        })?;
        Plan::parse(plan).map_err(|message| place(kernel.line, &message))?;
        body += &call;
    }
    Ok(Module { path: path.clone(), body })
}

/// `call!` with the kernel's name and a field for each argument.
fn call(kernel: &Prototype, name: &str) -> Result<String, String> {
    let lifetime = if kernel.parameters.iter().any(|p| matches!(p.kind, Kind::Pointer { .. })) { "<'a>" } else { "" };
    let mut text = format!("    call! {{ {name}{lifetime}, {:?}, {{\n", kernel.name);
    for parameter in &kernel.parameters {
        text +=
            &format!("        {}\n        {}: {},\n", documentation(parameter), field(&parameter.name)?, rust_type(parameter.kind));
    }
    Ok(text + "    } }\n")
}

fn rust_type(kind: Kind) -> String {
    match kind {
        Kind::Pointer { element: ELEMENT, constant: true } => "ElementSlice<'a>".to_owned(),
        Kind::Pointer { element: ELEMENT, constant: false } => "ElementSliceMut<'a>".to_owned(),
        Kind::Pointer { element, constant: true } => format!("Slice<'a, {element}>"),
        Kind::Pointer { element, constant: false } => format!("SliceMut<'a, {element}>"),
        Kind::Value(name) => name.to_owned(),
    }
}

/// The declaration, and the shape that its comment gives.
fn documentation(parameter: &Parameter) -> String {
    let mut text = format!("`{} {}`", parameter.declared, parameter.name);
    if let Some(comment) = parameter.comment.as_ref().filter(|comment| !comment.is_empty()) {
        text += &format!(", `{}`", comment.replace('`', "'"));
    }
    format!("#[doc = {text:?}]")
}

/// The parameter's name; one that is a word of Rust as a raw identifier.
fn field(name: &str) -> Result<String, String> {
    const WORDS: &str = "abstract as async await become box break const continue do dyn else enum extern false final fn for gen if impl \
                         in let loop macro match mod move mut override priv pub ref return static struct trait true try type typeof \
                         unsafe unsized use virtual where while yield";
    match name {
        "self" | "Self" | "super" | "crate" | "_" => Err(format!("a parameter cannot be called `{name}` in Rust")),
        name if WORDS.split_whitespace().any(|word| word == name) => Ok(format!("r#{name}")),
        name => Ok(name.to_owned()),
    }
}

/// A module's name: `01_naive` becomes `_01_naive`.
fn identifier(name: &str, path: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name.to_owned() };
    if name.is_empty() || name == "_" || !name.chars().all(plain) {
        return Err(format!(
            "kernels/{path}:1: the names of files and folders may have lower-case letters, digits and underscores"
        ));
    }
    field(&name).map_err(|message| format!("kernels/{path}:1: {message}"))
}

/// `axpy_bf16` becomes `AxpyBf16`.
fn camel_case(name: &str) -> String {
    let capitalized = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let joined: String = name.split('_').filter(|word| !word.is_empty()).map(capitalized).collect();
    if joined.starts_with(|c: char| c.is_ascii_alphabetic()) { joined } else { format!("Kernel{joined}") }
}

fn embedded(path: &str) -> String {
    format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/kernels/{path}\"))")
}

/// Names and texts with their lengths, so that no other files give the same.
fn hash(source: &File, headers: &[File]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(source).chain(headers).flat_map(|file| [&file.path, &file.text]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
