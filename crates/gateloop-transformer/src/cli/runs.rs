//! `gateloop runs`

use super::args::RunsArgs;
use super::{CliError, print_line};
use crate::config::Config;
use crate::metrics::{self, Record};
use crate::train::RunFolder;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn run(args: &RunsArgs) -> Result<(), CliError> {
    let mut folders: Vec<PathBuf> =
        args.folders.iter().flat_map(|folder| runs_in(folder)).collect();
    folders.sort_unstable();
    folders.dedup();
    let rows: Vec<Row> = folders.iter().map(|folder| Row::of(folder)).collect();
    if rows.is_empty() {
        let folders = args.folders.iter().map(|folder| format!("`{}`", folder.display()));
        return Err(CliError::NoRuns { folders: folders.collect() });
    }
    let head = Row(["run", "step", "of", "best bpc", "at step", "last loss", "tokens/s", "time"]
        .map(str::to_owned));
    let table: Vec<&Row> = [&head].into_iter().chain(&rows).collect();
    let width = |column: usize| table.iter().map(|row| row.0[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.0.len()).filter_map(width).collect();
    table.iter().try_for_each(|row| print_line(&row.aligned(&widths)))
}

/// The run that a folder is, or those that lie in it.
fn runs_in(folder: &Path) -> Vec<PathBuf> {
    // A folder of configurations is none.
    let is_run = |path: &Path| RunFolder::existing(path).is_ok_and(|run| run.metrics().is_file());
    if is_run(folder) {
        return vec![folder.to_owned()];
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_run(path)).collect()
}

/// A line of the table.
struct Row([String; 8]);

impl Row {
    fn of(folder: &Path) -> Self {
        let dash = || "-".to_owned();
        let name = folder.display().to_string();
        let config = Config::load(folder.join("config.toml"), &[]).ok();
        let steps = config.map_or_else(dash, |config| config.train.steps.to_string());
        // A run that has not recorded anything, or whose records are damaged, is listed all the same.
        let records = RunFolder::existing(folder)
            .ok()
            .and_then(|run| metrics::read(run.metrics()).ok())
            .unwrap_or_default();
        let Some(last) = records.last() else {
            return Self([name, "0".to_owned(), steps, dash(), dash(), dash(), dash(), dash()]);
        };
        let value = |record: &Record, key: &str| record.values.get(key).copied();
        let validations = records.iter().filter_map(|r| Some((r.step, value(r, "valid/bpc")?)));
        let best = validations.filter(|(_, bpc)| !bpc.is_nan()).min_by(|a, b| a.1.total_cmp(&b.1));
        let last_of = |key| records.iter().rev().find_map(|record| value(record, key));
        Self([
            name,
            last.step.to_string(),
            steps,
            best.map_or_else(dash, |(_, bpc)| format!("{bpc:.4}")),
            best.map_or_else(dash, |(step, _)| step.to_string()),
            last_of("train/loss").map_or_else(dash, |loss| format!("{loss:.4}")),
            last_of("tokens_per_s").map_or_else(dash, |speed| format!("{speed:.0}")),
            duration(last.time_s),
        ])
    }

    /// Names to the left, numbers to the right.
    fn aligned(&self, widths: &[usize]) -> String {
        let cells = self.0.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_two_units() {
        assert_eq!([5.9, 65.0, 3661.0].map(duration), ["5 s", "1 min 05 s", "1 h 01 min"]);
    }
}
