//! A device, the kernels that were compiled for it, and the stream that work goes to: what operations launch kernels by.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::kernels::plan::{Constants, Extents, Plan};
use super::kernels::prototype::{self, ELEMENT, Kind, Prototype};
use super::kernels::{self, Call};
use super::nvrtc::{Compiled, Compiler, Options, Resources, Source};
use super::{Arch, Device, ElementType, Kernel, LaunchConfig, Stream};
use crate::error::{Error, Result};

/// Macros that a kernel is compiled with, beside `element`: tile sizes, head widths.
pub type Defines<'a> = &'a [(&'a str, i64)];

/// Launches kernels: compiles each specialisation when it is first needed and keeps it.
pub struct Context {
    device: Arc<dyn Device>,
    stream: Stream,
    compiler: Arc<Compiler>,
    replacement: Option<Replacement>,
    replaced: AtomicBool,
    loaded: Mutex<HashMap<Specialisation, Arc<LoadedFile>>>,
}

/// A file compiled in one way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Specialisation {
    /// The file's name: `kernels/rmsnorm.cu`.
    pub file: String,
    /// Macros and their values, `element` first.
    pub defines: Vec<(String, String)>,
    /// Whether the file is the replacement, which may have the name of one of ours.
    pub replacement: bool,
}

/// Kernels that stand in for ours of the same names.
#[derive(Debug, Clone)]
pub struct Replacement {
    name: String,
    text: String,
    kernels: Vec<Prototype>,
}

/// A file on the device.
struct LoadedFile {
    kernels: Vec<LoadedKernel>,
    compiled: Compiled,
}

struct LoadedKernel {
    kernel: Kernel,
    prototype: Prototype,
    plan: Plan,
    /// The plan's budget; nothing if it sets none.
    registers: Option<i64>,
    constants: Constants,
}

/// What the assembler says of a kernel, and what its file allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How the file was compiled.
    pub specialisation: Specialisation,
    /// For what.
    pub arch: Arch,
    /// Registers, spills, shared memory.
    pub resources: Resources,
    /// The most registers that the file's launch comment allows.
    pub registers: Option<i64>,
}

impl Budget {
    /// What exceeds the budget, or is spilled to memory, in words.
    pub fn excess(&self) -> Option<String> {
        let Resources { kernel, registers, spill_stores, spill_loads, .. } = &self.resources;
        let most = self.registers.filter(|&most| i64::from(*registers) > most);
        let spilled = spill_stores + spill_loads > 0;
        let excess = match most {
            _ if spilled => format!("spills {spill_stores} bytes and loads {spill_loads} back"),
            Some(most) => format!("needs {registers} registers, its budget is {most}"),
            None => return None,
        };
        Some(format!("`{kernel}` for {} {excess} ({})", self.arch, self.specialisation))
    }
}

impl fmt::Display for Specialisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.defines.iter().try_for_each(|(name, value)| write!(f, " -D {name}={value}"))
    }
}

impl Replacement {
    /// Reads a file of kernels, of which each must have the name and the parameters of one of ours, and say how it is launched.
    ///
    /// # Errors
    /// What is wrong, with the line: no kernel of ours has the name, other parameters, no launch comment.
    pub fn new(name: &str, text: String) -> Result<Self> {
        let place = |line: usize, message: String| Error::config(format!("{name}:{line}: {message}"));
        let kernels = prototype::parse(&text).map_err(|failure| place(failure.line, failure.message))?;
        if kernels.is_empty() {
            return Err(Error::config(format!("{name}: no kernel (`extern \"C\" __global__ void name(…)`)")));
        }
        let shipped = shipped()?;
        for kernel in &kernels {
            let Some(ours) = shipped.iter().find(|ours| ours.name == kernel.name) else {
                return Err(place(kernel.line, unknown(&kernel.name, &shipped)));
            };
            let types = |of: &Prototype| of.parameters.iter().map(|p| p.kind).collect::<Vec<Kind>>();
            if types(kernel) != types(ours) {
                let (yours, expected) = (signature(kernel), signature(ours));
                let message = format!("`{}` has other parameters than ours\nyours: {yours}\nours:  {expected}", kernel.name);
                return Err(place(kernel.line, message));
            }
            let plan = kernel.launch.as_deref().ok_or_else(|| {
                place(kernel.line, format!("`{}`: no comment `// launch: grid …, block …` above it", kernel.name))
            })?;
            Plan::parse(plan).map_err(|message| place(kernel.line, message))?;
        }
        Ok(Self { name: name.to_owned(), text, kernels })
    }

    /// Names of its kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }
}

/// All kernels of ours; the ladders' rungs stand in for them.
fn shipped() -> Result<Vec<Prototype>> {
    let files = kernels::SOURCES.iter().filter(|source| !source.name.starts_with("kernels/ladder/"));
    let kernels: Vec<Vec<Prototype>> = files.map(|source| prototypes(source)).collect::<Result<_>>()?;
    Ok(kernels.concat())
}

/// That none of ours is called so, and which begin alike.
fn unknown(name: &str, shipped: &[Prototype]) -> String {
    let word = |name: &str| name.split('_').next().map(str::to_owned);
    let mut alike: Vec<&str> = shipped.iter().map(|ours| ours.name.as_str()).filter(|ours| word(ours) == word(name)).collect();
    alike.dedup();
    let there_are = if alike.is_empty() { String::new() } else { format!(": there are {}", alike.join(", ")) };
    format!("none of our kernels is called `{name}`{there_are}")
}

fn prototypes(source: &Source<'_>) -> Result<Vec<Prototype>> {
    prototype::parse(source.text).map_err(|failure| Error::config(format!("{}:{}: {}", source.name, failure.line, failure.message)))
}

/// As a person writes it.
fn signature(kernel: &Prototype) -> String {
    let parameters: Vec<String> = kernel.parameters.iter().map(|p| format!("{} {}", p.declared, p.name)).collect();
    format!("void {}({})", kernel.name, parameters.join(", "))
}

impl Context {
    /// On a new stream of the device, with the NVRTC that the environment offers.
    pub fn new(device: Arc<dyn Device>) -> Result<Self> {
        Self::with(device, Arc::new(Compiler::new()?))
    }

    /// With this compiler, which contexts may share.
    pub fn with(device: Arc<dyn Device>, compiler: Arc<Compiler>) -> Result<Self> {
        let stream = device.stream()?;
        Ok(Self { device, stream, compiler, replacement: None, replaced: AtomicBool::new(false), loaded: Mutex::default() })
    }

    /// With kernels that stand in for ours of the same names.
    pub fn replacing(self, replacement: Option<Replacement>) -> Self {
        Self { replacement, loaded: Mutex::default(), ..self }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The stream that launches go to.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Launches a kernel, compiled with these macros, over as many threads as its file says.
    ///
    /// # Errors
    /// Arguments of mixed element types; a file that does not compile; a launch comment that has no value for these arguments; what
    /// the device cannot run.
    pub fn launch<C: Call>(&self, defines: Defines<'_>, call: &C) -> Result<()> {
        self.launch_compiled(call.element()?, defines, call)
    }

    /// The same for a kernel none of whose arguments has elements, though its file's layout depends on their type.
    pub fn launch_for<C: Call>(&self, element: ElementType, defines: Defines<'_>, call: &C) -> Result<()> {
        self.launch_compiled(Some(element), defines, call)
    }

    fn launch_compiled<C: Call>(&self, element: Option<ElementType>, defines: Defines<'_>, call: &C) -> Result<()> {
        let file = self.load(C::SOURCE, C::KERNEL, element, defines)?;
        let loaded = file
            .kernels
            .iter()
            .find(|kernel| kernel.prototype.name == C::KERNEL)
            .ok_or_else(|| Error::device(format!("{}: no kernel `{}`", file.compiled.name, C::KERNEL)))?;
        let integers = call.integers();
        let config = loaded.config(&integers).map_err(|message| {
            let Prototype { name, line, .. } = &loaded.prototype;
            Error::device(format!("{}:{line}: kernel `{name}`: {message}", file.compiled.name))
        })?;
        self.device.launch(&self.stream, &loaded.kernel, &config, &call.arguments())
    }

    /// Whether a kernel of the replacement was needed, compiled or not.
    pub fn used_replacement(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    /// What the kernels of every file that was needed so far take of a multiprocessor when they are compiled for this target.
    pub fn budgets(&self, arch: Arch) -> Result<Vec<Budget>> {
        let loaded: Vec<_> = self.lock().iter().map(|(specialisation, file)| (specialisation.clone(), file.clone())).collect();
        let mut budgets = Vec::new();
        for (specialisation, file) in loaded {
            let resources = if arch == file.compiled.arch {
                file.compiled.resources.clone()
            } else {
                let source = self.source(&specialisation)?;
                let options = Options { defines: specialisation.defines.clone(), ..Options::new(arch) };
                self.compiler.compile(&source, &options)?.resources
            };
            for resources in resources {
                let kernel = file.kernels.iter().find(|kernel| kernel.prototype.name == resources.kernel);
                let registers = kernel.and_then(|kernel| kernel.registers);
                budgets.push(Budget { specialisation: specialisation.clone(), arch, resources, registers });
            }
        }
        budgets.sort_by(|a, b| (&a.specialisation, &a.resources.kernel).cmp(&(&b.specialisation, &b.resources.kernel)));
        Ok(budgets)
    }

    /// The file that was compiled: the replacement or one of ours.
    fn source(&self, specialisation: &Specialisation) -> Result<Source<'_>> {
        let Specialisation { file, replacement, .. } = specialisation;
        let source = match &self.replacement {
            Some(Replacement { name, text, .. }) if *replacement => Some(Source { name, text, headers: kernels::HEADERS }),
            _ => kernels::SOURCES.iter().find(|source| source.name == file).map(|source| **source),
        };
        source.ok_or_else(|| Error::Internal(format!("no source {file}")))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Specialisation, Arc<LoadedFile>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that has the kernel, ours or the replacement, compiled in this way.
    fn load(
        &self,
        source: &'static Source<'static>,
        kernel: &str,
        element: Option<ElementType>,
        defines: Defines<'_>,
    ) -> Result<Arc<LoadedFile>> {
        let replacement = self.replacement.as_ref().filter(|replacement| replacement.kernels().any(|name| name == kernel));
        if replacement.is_some() {
            self.replaced.store(true, Ordering::Relaxed);
        }
        let file = replacement.map_or(source.name, |replacement| &replacement.name).to_owned();
        let element = element.map(|element| (ELEMENT.to_owned(), element.cuda_name().to_owned()));
        let defines = element.into_iter().chain(defines.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())));
        let specialisation = Specialisation { file, defines: defines.collect(), replacement: replacement.is_some() };
        if let Some(loaded) = self.lock().get(&specialisation) {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(self.compile(&self.source(&specialisation)?, &specialisation)?);
        self.lock().insert(specialisation, loaded.clone());
        Ok(loaded)
    }

    fn compile(&self, source: &Source<'_>, specialisation: &Specialisation) -> Result<LoadedFile> {
        let options = Options { defines: specialisation.defines.clone(), ..Options::new(self.device.info().arch) };
        let compiled = self.compiler.compile(source, &options)?;
        let module = self.device.load(&compiled)?;
        let element = specialisation.defines.iter().find(|(name, _)| name == ELEMENT).map(|(_, value)| value.as_str());
        let bytes = ElementType::ALL.iter().find(|e| Some(e.cuda_name()) == element).unwrap_or(&ElementType::F32).bytes();
        let texts = included_texts(source);
        let constants = Constants::new(texts, &specialisation.defines, bytes as i64);
        let mut loaded = Vec::new();
        for prototype in prototypes(source)? {
            let at = |message: String| Error::config(format!("{}:{}: {message}", source.name, prototype.line));
            let plan = prototype.launch.as_deref().ok_or_else(|| at(format!("`{}` has no launch comment", prototype.name)))?;
            let plan = Plan::parse(plan).map_err(at)?;
            // A budget that has no value would hold nobody to anything.
            let registers = plan.registers.as_ref().map(|budget| constants.value(budget, &|_| None)).transpose().map_err(at)?;
            let kernel = self.device.kernel(&module, &prototype.name)?;
            loaded.push(LoadedKernel { kernel, plan, registers, constants: constants.clone(), prototype });
        }
        Ok(LoadedFile { kernels: loaded, compiled })
    }
}

impl LoadedKernel {
    /// Blocks and threads for these integer arguments, which stand at the places of the parameters.
    fn config(&self, integers: &[Option<i64>]) -> Result<LaunchConfig, String> {
        let parameter = |name: &str| {
            let place = self.prototype.parameters.iter().position(|parameter| parameter.name == name)?;
            *integers.get(place)?
        };
        let Extents { grid, block, shared, .. } = self.plan.extents(&parameter, &self.constants)?;
        let extent =
            |value: i64| u32::try_from(value).map_err(|_| format!("launch: {value} is no number of blocks, threads or bytes"));
        let three = |of: [i64; 3]| Ok::<_, String>([extent(of[0])?, extent(of[1])?, extent(of[2])?]);
        let config = LaunchConfig::new(1, 1);
        Ok(LaunchConfig { grid: three(grid)?, block: three(block)?, shared_bytes: extent(shared)?, ..config })
    }
}

/// The file's text and those of the headers in memory that it includes, directly or not.
fn included_texts<'a>(source: &Source<'a>) -> Vec<&'a str> {
    let mut texts = vec![source.text];
    let mut at = 0;
    while let Some(&text) = texts.get(at) {
        let included = text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.strip_suffix('"'));
        for (_, header) in included.filter_map(|name| source.headers.iter().find(|header| header.0 == name)) {
            if !texts.contains(header) {
                texts.push(header);
            }
        }
        at += 1;
    }
    texts
}
