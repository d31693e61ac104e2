//! The host's side: memory, loaded modules, launches.

use std::sync::Arc;

use crate::Result;
use crate::check::races::Shadows;
use crate::machine::launch::{Context, Launch, Report, threads_of, validate};
use crate::machine::progress::Progress;
use crate::machine::scheduler;
use crate::memory::device::Resident;
use crate::memory::shared::Layout;
use crate::program::Program;

/// An emulated GPU.
#[derive(Default)]
pub struct Device {
    memory: Resident,
    races: Shadows,
}

/// A program whose variables have been placed in a device's memory.
pub struct Module {
    program: Arc<Program>,
    variables: Vec<u64>,
}

impl Module {
    /// The program that was loaded.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Address of a module-scope variable in global or constant memory.
    pub fn variable(&self, name: &str) -> Option<u64> {
        let index = self.program.variables.iter().position(|variable| variable.name == name)?;
        self.variables.get(index).copied()
    }
}

impl Device {
    /// A device with empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allocates `bytes` bytes that hold no defined value; the name appears in findings. The address is a multiple of 512.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn allocate(&mut self, name: &str, bytes: u64) -> Result<u64> {
        self.memory.allocate(name, bytes)
    }

    /// Frees an allocation by its address, which is never given out again.
    ///
    /// # Errors
    /// The address is not the start of a live allocation.
    pub fn free(&mut self, address: u64) -> Result<()> {
        self.memory.free(address)?;
        if let Some(index) = self.memory.find(address) {
            self.races.free(index);
        }
        Ok(())
    }

    /// Copies bytes to the device, and marks them defined.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (allocation, offset) = self.memory.range(address, bytes.len() as u64)?;
        allocation.write(offset, bytes);
        Ok(())
    }

    /// Copies bytes from the device, written or not.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let (allocation, offset) = self.memory.range(address, bytes.len() as u64)?;
        allocation.read(offset, bytes);
        Ok(())
    }

    /// Copies bytes within the device; those that are undefined are so in the copy. The ranges must not overlap.
    ///
    /// # Errors
    /// A range is not within one allocation.
    pub fn copy(&mut self, to: u64, from: u64, bytes: u64) -> Result<()> {
        let (source, from) = self.memory.range(from, bytes)?;
        let (target, to) = self.memory.range(to, bytes)?;
        let mut buffer = vec![0; bytes as usize];
        source.read(from, &mut buffer);
        target.write(to, &buffer);
        if source.first_undefined(from, bytes).is_some() {
            target.copy_defined(to, source, from, bytes);
        }
        Ok(())
    }

    /// Marks a range as holding no defined value any more, whatever its bytes.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn undefine(&mut self, address: u64, bytes: u64) -> Result<()> {
        let (allocation, offset) = self.memory.range(address, bytes)?;
        allocation.define(offset, bytes, false);
        Ok(())
    }

    /// Offset of the first byte of a range that nobody has written.
    ///
    /// # Errors
    /// The range is not within one allocation.
    pub fn first_undefined(&self, address: u64, bytes: u64) -> Result<Option<u64>> {
        let (allocation, offset) = self.memory.range(address, bytes)?;
        Ok(allocation.first_undefined(offset, bytes).map(|at| at - offset))
    }

    /// Places a program's variables in memory.
    ///
    /// # Errors
    /// The host has no memory left.
    pub fn load(&mut self, program: Arc<Program>) -> Result<Module> {
        let mut variables = Vec::new();
        for variable in &program.variables {
            variables.push(self.memory.allocate(&variable.name, variable.bytes)?);
        }
        for (variable, &address) in program.variables.iter().zip(&variables) {
            let mut bytes = variable.initial.clone();
            for relocation in &variable.relocations {
                let value = variables[relocation.target].wrapping_add_signed(relocation.offset);
                if let Some(slot) = bytes.get_mut(relocation.at..relocation.at + 8) {
                    slot.copy_from_slice(&value.to_le_bytes());
                }
            }
            self.write(address, &bytes)?;
            // What the module leaves out is zero, as all new memory is.
            let (allocation, offset) = self.memory.range(address, variable.bytes)?;
            allocation.define(offset, variable.bytes, true);
        }
        Ok(Module { program, variables })
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// No such kernel, a launch that no device could do, too many instructions. What the kernel does wrong is in the report.
    pub fn launch(&mut self, module: &Module, kernel: &str, launch: &Launch) -> Result<Report> {
        let kernel = module.program.kernel(kernel)?;
        let mut launch = launch.clone();
        if launch.cluster == [1; 3]
            && let Some(numbers) = kernel.directives.get("reqnctapercluster")
        {
            launch.cluster = std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(1));
        }
        validate(kernel, &launch)?;
        if launch.checked {
            self.races.begin(self.memory.len(), launch.blocks());
        }
        let context = Context {
            program: &module.program,
            kernel,
            launch: &launch,
            memory: &self.memory,
            variables: &module.variables,
            checked: launch.checked,
            uses_async_proxy: launch.checked && module.program.uses_async_proxy(),
            races: &self.races,
            threads: threads_of(launch.block),
            shared: Layout::new(kernel, launch.shared_bytes),
            progress: Progress::default(),
        };
        scheduler::run(&context)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_take_along_what_is_undefined() {
        let mut device = Device::new();
        let (a, b) = (device.allocate("a", 100).unwrap(), device.allocate("b", 100).unwrap());
        let bytes: Vec<u8> = (0..100).collect();
        device.write(a, &bytes).unwrap();
        device.write(b, &[0; 100]).unwrap();
        device.undefine(a + 67, 2).unwrap();
        device.copy(b + 1, a + 30, 60).unwrap();
        let mut copied = [0; 60];
        device.read(b + 1, &mut copied).unwrap();
        assert_eq!(copied[..], bytes[30..90]);
        // Brute force over every window.
        let hole = |start: u64| (start..100).find(|at| [38, 39].contains(at)).map(|at| at - start);
        for start in 0..100 {
            assert_eq!(device.first_undefined(b + start, 100 - start).unwrap(), hole(start), "{start}");
        }
        device.copy(b, a, 60).unwrap();
        assert_eq!(device.first_undefined(b, 100).unwrap(), None);
        assert!(device.copy(b, a + 50, 51).is_err());
    }
}
