//! ptxas, the compiler from PTX to machine code, for what it says of registers and memory.
//!
//! It is the only one that knows, and it also refuses instructions that NVRTC lets pass.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// What one function takes on one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) function: String,
    /// Of a thread; ptxas names them for kernels only, not for functions that they call.
    pub(crate) registers: Option<u32>,
    /// Bytes stored for want of registers, and bytes loaded back.
    pub(crate) spilled: u32,
    /// Bytes of a thread.
    pub(crate) stack: u32,
    /// Static bytes of a block.
    pub(crate) shared: u32,
}

impl Usage {
    /// Whether it touches memory that a good kernel has no need of.
    pub(crate) fn spills(&self) -> bool {
        self.spilled > 0 || self.stack > 0
    }
}

/// One file to compile for one architecture.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) program: PathBuf,
    pub(crate) arch: &'static str,
    /// What an error calls it.
    pub(crate) name: String,
    pub(crate) ptx: PathBuf,
}

impl Job {
    /// Compiles into `folder` and throws the machine code away with it.
    pub(crate) fn run(&self, folder: &Path) -> Result<Vec<Usage>> {
        let output = Command::new(&self.program)
            .args(["--verbose", "--gpu-name", self.arch, "--output-file"])
            .arg(folder.join(format!("{}.{}.cubin", self.name, self.arch)))
            .arg(&self.ptx)
            .output()
            .map_err(|source| Error::Spawn {
                program: self.program.display().to_string(),
                source,
            })?;
        let words = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(self.refused(&words));
        }
        let usages = parse(&words);
        // Words of another form must not pass for a clean report.
        if usages.is_empty() { Err(self.refused(&words)) } else { Ok(usages) }
    }

    fn refused(&self, words: &str) -> Error {
        let words = words.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n");
        Error::Ptxas { file: self.name.clone(), arch: self.arch, words }
    }
}

/// Reads what `ptxas --verbose` prints.
pub(crate) fn parse(words: &str) -> Vec<Usage> {
    let mut usages: Vec<Usage> = Vec::new();
    // The kernel a line with registers belongs to, the function a line with the stack belongs to.
    let (mut kernel, mut function) = (None, None);
    for line in words.lines() {
        if let Some(rest) = after(line, "Compiling entry function '") {
            kernel = rest.split('\'').next().map(|name| row(&mut usages, name));
        } else if let Some(name) = after(line, "Function properties for ") {
            function = Some(row(&mut usages, name.trim()));
        } else if let Some((usage, rest)) = kernel.zip(after(line, "Used ")) {
            let usage = &mut usages[usage];
            usage.registers = number_before(rest, " registers");
            usage.shared = number_before(rest, " bytes smem").unwrap_or(0);
        } else if let Some(usage) = function.filter(|_| line.contains("bytes stack frame")) {
            let number = |unit| number_before(line, unit).unwrap_or(0);
            let usage = &mut usages[usage];
            usage.stack = number(" bytes stack frame");
            usage.spilled = number(" bytes spill stores") + number(" bytes spill loads");
        }
    }
    usages
}

fn row(usages: &mut Vec<Usage>, function: &str) -> usize {
    usages.iter().position(|usage| usage.function == function).unwrap_or_else(|| {
        usages.push(Usage { function: function.to_owned(), ..Usage::default() });
        usages.len() - 1
    })
}

fn after<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    line.split_once(words).map(|(_, rest)| rest)
}

/// The number that stands before `unit`: 8 of `8 registers, 64 bytes smem` before ` registers`.
fn number_before(text: &str, unit: &str) -> Option<u32> {
    let (before, _) = text.split_once(unit)?;
    let digits = before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    before[digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(
        function: &str,
        registers: Option<u32>,
        spilled: u32,
        stack: u32,
        shared: u32,
    ) -> Usage {
        Usage { function: function.to_owned(), registers, spilled, stack, shared }
    }

    /// As ptxas 12.4 prints it for sm_80.
    const OLD: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'calls' for 'sm_80'
ptxas info    : Function properties for calls
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 368 bytes cmem[0]
ptxas info    : Function properties for _Z6calleei
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'spills' for 'sm_80'
ptxas info    : Function properties for spills
    8960 bytes stack frame, 9192 bytes spill stores, 18356 bytes spill loads
ptxas info    : Used 32 registers, 8960 bytes cumulative stack size, 372 bytes cmem[0]
";

    /// As ptxas 13.0 prints it for sm_100.
    const NEW: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sum' for 'sm_100'
ptxas info    : Function properties for sum
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 21 registers, used 1 barriers, 256 bytes smem
ptxas info    : Compile time = 10.061 ms
";

    #[test]
    fn registers_spills_stack_and_shared_memory_are_read() {
        let expected = [
            usage("calls", Some(12), 0, 0, 0),
            usage("_Z6calleei", None, 0, 8, 0),
            usage("spills", Some(32), 27_548, 8_960, 0),
        ];
        assert_eq!(parse(OLD), expected);
        assert_eq!(parse(NEW), [usage("sum", Some(21), 0, 0, 256)]);
        assert_eq!(parse("nothing of the kind\n"), []);
    }

    #[test]
    fn a_stack_frame_alone_is_a_fault() {
        let found: Vec<bool> = parse(OLD).iter().map(Usage::spills).collect();
        assert_eq!(found, [false, true, true]);
    }

    #[test]
    fn words_that_cannot_be_read_are_no_clean_report() {
        let dir = tempfile::tempdir().unwrap();
        let job = |program: &str| Job {
            program: program.into(),
            arch: "sm_80",
            name: "scan.ptx".to_owned(),
            ptx: dir.path().join("scan.ptx"),
        };
        let run = |program| job(program).run(dir.path());
        assert!(matches!(run("true"), Err(Error::Ptxas { .. })));
        assert!(matches!(run("false"), Err(Error::Ptxas { .. })));
        assert!(matches!(run("/no/such/ptxas"), Err(Error::Spawn { .. })));
    }
}
