//! What a run on a GPU left, as record files and one table beside the targets.
//!
//! `gpu --report FOLDER DAY` reads `kernels.jsonl`, `peers.jsonl` and the training runs of the folder, as far as they are there,
//! and writes `FOLDER/record/DAY-*.csv`, which benches/record keeps.

mod csv;
mod results;
mod table;

use results::Results;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Writes the records and prints the table, the last thing of a run.
///
/// # Errors
/// A file that cannot be read, written or understood, with its name and line.
pub(crate) fn run(folder: &Path, day: &str) -> io::Result<()> {
    let results = Results::read(folder)?;
    csv::write(&results, &folder.join("record"), day)?;
    let mut text = String::new();
    for row in table::rows(&results) {
        let _ = writeln!(text, "{row}");
    }
    println!("{text}");
    Ok(())
}
