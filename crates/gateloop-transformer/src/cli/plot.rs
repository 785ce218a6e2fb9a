//! `gateloop plot`

use super::args::PlotArgs;
use super::{CliError, print_line};
use crate::metrics::{self, Record, plot};
use crate::train::RunFolder;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &PlotArgs) -> Result<(), CliError> {
    let name = if args.gates { "gates.svg" } else { "loss.svg" };
    let out = args.out.clone().unwrap_or_else(|| name.into());
    // Before anything is read: it may be long.
    plot::Format::of(&out)?;
    let records = args.runs.iter().map(|path| records(path)).collect::<Result<Vec<_>, _>>()?;
    let names = names(&args.runs);
    let runs: Vec<plot::Run<'_>> = names
        .iter()
        .zip(&records)
        .map(|(name, records)| plot::Run {
            name: if names.len() == 1 { "" } else { name },
            records,
        })
        .collect();
    let title = if let [name] = &names[..] { name.as_str() } else { "" };
    if !args.gates {
        plot::loss_curve(&runs, args.by, title, &out)?;
    } else if let [run] = &runs[..] {
        plot::gate_memory(run.records, title, &out)?;
    } else {
        let problem = format!("--gates shows one run, and {} are given: name one", runs.len());
        return Err(CliError::Usage(problem));
    }
    print_line(&out.display().to_string())
}

fn records(path: &Path) -> Result<Vec<Record>, CliError> {
    // Records are enough, whoever wrote them.
    let file = if path.is_dir() { path.join(RunFolder::METRICS) } else { path.to_owned() };
    Ok(metrics::read(file)?)
}

/// The last part of each path; all of it, where two end alike.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let whole = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let last = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let short: Vec<String> = paths.iter().filter_map(last).collect();
    let mut distinct = short.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() == paths.len() { short } else { whole() }
}

#[cfg(test)]
mod tests {
    use super::names;
    use std::path::PathBuf;

    #[test]
    fn names_are_short_where_that_tells_runs_apart() {
        let names = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["runs/a", "runs/b"]), ["a", "b"]);
        assert_eq!(names(&["old/a", "new/a"]), ["old/a", "new/a"]);
    }
}
