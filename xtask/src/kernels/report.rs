//! What every kernel takes on every architecture, as one table.

use std::collections::BTreeMap;
use std::fmt;

use super::ptxas::Usage;
use crate::table::aligned;

/// The architectures of the report, oldest first: A100, H100, B200.
pub(crate) const ARCHS: [&str; 3] = ["sm_80", "sm_90", "sm_100"];

/// The rows, by function.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeMap<String, [Option<Usage>; ARCHS.len()]>);

impl Report {
    /// Adds what was found on one architecture, by its place in [`ARCHS`].
    pub(crate) fn add(&mut self, arch: usize, usages: Vec<Usage>) {
        for usage in usages {
            let row = self.0.entry(usage.function.clone()).or_default();
            row[arch] = Some(usage);
        }
    }

    /// How many functions were compiled, each architecture counted.
    pub(crate) fn total(&self) -> usize {
        self.0.values().flatten().flatten().count()
    }

    /// A line for each function that spills or has a stack frame on some architecture.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (function, row) in &self.0 {
            for (arch, usage) in ARCHS.iter().zip(row) {
                let Some(usage) = usage.as_ref().filter(|usage| usage.spills()) else { continue };
                let (spilled, stack) = (usage.spilled, usage.stack);
                let what = format!("{spilled} bytes spilled, {stack} bytes of stack");
                lines.push(format!("{function} on {arch}: {what}"));
            }
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = ARCHS;
        let mut rows = vec![["kernel", a, b, c, "stack", "smem"].map(str::to_owned)];
        for (function, row) in &self.0 {
            let cell = |arch: usize| row[arch].as_ref().map_or_else(String::new, brief);
            // The stack differs between architectures as the registers do; the worst one counts.
            let most = |of: fn(&Usage) -> u32| row.iter().flatten().map(of).max().unwrap_or(0);
            let (stack, shared) = (most(|it| it.stack), most(|it| it.shared));
            let (stack, shared) = (stack.to_string(), shared.to_string());
            rows.push([function.clone(), cell(0), cell(1), cell(2), stack, shared]);
        }
        let units = "registers/spilled bytes of a thread on each architecture; stack: bytes of a \
                     thread, at most; smem: static bytes of a block";
        writeln!(f, "{}{units}", aligned(&rows))?;
        for fault in self.faults() {
            writeln!(f, "SPILLS  {fault}")?;
        }
        Ok(())
    }
}

fn brief(usage: &Usage) -> String {
    let registers = usage.registers.map_or_else(|| "-".to_owned(), |it| it.to_string());
    format!("{registers}/{}", usage.spilled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(function: &str, registers: u32, spilled: u32, stack: u32) -> Usage {
        let registers = Some(registers);
        Usage { function: function.to_owned(), registers, spilled, stack, shared: 1920 }
    }

    #[test]
    fn a_kernel_is_one_row_and_each_fault_is_named() {
        let mut report = Report::default();
        report.add(0, vec![usage("fwd", 80, 0, 0), usage("bwd", 101, 0, 0)]);
        report.add(1, vec![usage("fwd", 80, 0, 8), usage("bwd", 128, 0, 0)]);
        report.add(2, vec![usage("fwd", 80, 16, 16)]);
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "kernel  sm_80  sm_90  sm_100  stack  smem");
        assert_eq!(lines[1], "bwd     101/0  128/0          0      1920");
        assert_eq!(lines[2], "fwd     80/0   80/0   80/16   16     1920");
        assert_eq!(lines[4], "SPILLS  fwd on sm_90: 0 bytes spilled, 8 bytes of stack");
        assert_eq!(lines[5], "SPILLS  fwd on sm_100: 16 bytes spilled, 16 bytes of stack");
        assert_eq!((report.faults().len(), report.total()), (2, 5));
    }

    #[test]
    fn a_function_that_is_no_kernel_has_no_registers_of_its_own() {
        let mut report = Report::default();
        let callee = Usage { function: "callee".to_owned(), ..Usage::default() };
        report.add(0, vec![callee]);
        assert!(report.to_string().contains("callee  -/0"), "{report}");
    }
}
