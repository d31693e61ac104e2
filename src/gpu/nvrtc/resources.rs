//! What a kernel needs of a multiprocessor, as the assembler reports it in the log (`--ptxas-options=-v`).

/// Resources of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Resources {
    /// Its name.
    pub kernel: String,
    /// 32-bit registers of a thread.
    pub registers: u32,
    /// Bytes that the code stores because registers ran out, each store instruction counted once.
    pub spill_stores: u32,
    /// Bytes that it loads back, counted alike.
    pub spill_loads: u32,
    /// Bytes of a thread's stack, spills and local arrays included.
    pub stack: u32,
    /// Bytes of a block's static shared memory.
    pub shared: u32,
    /// Named barriers.
    pub barriers: u32,
}

/// Reads every kernel's lines. Empty for a `compute_*` target, which no assembler sees.
///
/// ```text
/// ptxas info    : Compiling entry function 'k' for 'sm_90a'
/// ptxas info    : Function properties for k
/// ptxas         .     1200 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 32 registers, used 1 barriers, 1200 bytes cumulative stack size, 256 bytes smem
/// ```
pub(super) fn parse(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    // Properties of device functions that were not inlined are reported in between; those of kernels follow their own name.
    let mut properties_of_kernel = false;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Resources { kernel, ..Resources::default() });
            continue;
        }
        let Some(current) = found.last_mut() else { continue };
        if let Some((_, name)) = line.split_once("Function properties for ") {
            properties_of_kernel = name.trim() == current.kernel;
        } else if line.contains(" bytes stack frame") && properties_of_kernel {
            current.stack = number_before(line, " bytes stack frame");
            current.spill_stores = number_before(line, " bytes spill stores");
            current.spill_loads = number_before(line, " bytes spill loads");
        } else if line.contains(": Used ") {
            current.registers = number_before(line, " registers");
            current.barriers = number_before(line, " barriers");
            current.shared = number_before(line, " bytes smem");
        }
    }
    found
}

/// The number that stands before these words; 0 if they do not occur.
fn number_before(line: &str, words: &str) -> u32 {
    let Some((before, _)) = line.split_once(words) else { return 0 };
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |last| last + 1);
    before.get(digits..).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_with_its_own_numbers() {
        let log = "\
ptxas info    : 24 bytes gmem
ptxas info    : Compiling entry function 'k2' for 'sm_90a'
ptxas info    : Function properties for k2
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 23 registers, used 0 barriers
ptxas info    : Compile time = 11.521 ms
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
ptxas         .     1200 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 3 barriers, 1200 bytes cumulative stack size, 256 bytes smem
ptxas info    : Function properties for called
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
";
        let k2 = Resources { kernel: "k2".into(), registers: 23, ..Resources::default() };
        let k = Resources {
            kernel: "k".into(),
            registers: 255,
            spill_stores: 12,
            spill_loads: 16,
            stack: 1200,
            shared: 256,
            barriers: 3,
        };
        assert_eq!(parse(log), [k2, k]);
    }

    #[test]
    fn a_log_without_them_or_with_nonsense() {
        assert_eq!(parse(""), []);
        assert_eq!(parse("k.cu(3): warning: unused variable\nptxas info : Used 9 registers\n"), []);
        let odd = parse("Compiling entry function 'k\n: Used 99999999999 registers,  barriers");
        assert_eq!(odd, [Resources { kernel: "k".into(), ..Resources::default() }]);
    }
}
