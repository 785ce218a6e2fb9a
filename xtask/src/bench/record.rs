//! The record of a run: a CSV file whose comments say on what it was made.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::machine::Machine;
use super::plan::Quantity;
use super::results::{Figure, Measured, Results, Status};

const COLUMNS: &str = "workload,side,samples,median,min,unit,ratio,limit,share,check";

/// Where the record of a machine and a day lies.
pub(crate) fn path(root: &Path, machine: &Machine) -> PathBuf {
    root.join("benches/record").join(machine.slug()).join(format!("{}.csv", machine.date))
}

/// The text of a record.
pub(crate) fn text(machine: &Machine, results: &Results) -> String {
    let mut text = String::from("# Written by `cargo xtask bench`.\n");
    for (name, value) in machine.lines() {
        line(&mut text, &format!("# {name}: {value}"));
    }
    line(&mut text, "# ratio: the median over ours; share: the limit's median over this one.");
    line(&mut text, COLUMNS);
    for measured in &results.0 {
        for figure in &measured.figures {
            line(&mut text, &row(measured, figure));
            if let Some(before) = figure.before {
                let name = quoted(&measured.work.name);
                let before = number(Some(before));
                line(
                    &mut text,
                    &format!("{name},{}-before,1,{before},{before},B,,,,", figure.side.name),
                );
            }
        }
    }
    text
}

fn row(measured: &Measured, figure: &Figure) -> String {
    let unit = match measured.work.quantity {
        Quantity::Time => "s",
        Quantity::Memory => "B",
    };
    let share = measured.share(figure);
    let limit = measured.limit().filter(|_| share.is_some()).map_or("", |(side, _)| side.name);
    let check = match &figure.status {
        Status::Good => "ok".to_owned(),
        Status::Failed(why) => format!("FAILED: {why}"),
        Status::Absent(why) => format!("absent: {why}"),
    };
    [
        quoted(&measured.work.name),
        figure.side.name.to_owned(),
        figure.samples.len().to_string(),
        number(figure.median()),
        number(figure.min()),
        unit.to_owned(),
        number(measured.ratio(figure)),
        limit.to_owned(),
        number(share),
        quoted(&check),
    ]
    .join(",")
}

/// Five digits; nothing for what was not measured.
fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| {
        let rounded: f64 = format!("{value:.4e}").parse().unwrap_or(value);
        rounded.to_string()
    })
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\"").replace('\n', " "))
    } else {
        text.to_owned()
    }
}

fn line(text: &mut String, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine;
    use crate::bench::plan::scans::LONG;
    use crate::bench::results::tests::invented;

    #[test]
    fn every_row_has_every_column() {
        let mut results = invented(|_, side| if side == "ours" { 0.25 } else { 0.2 });
        let jax = results.0.iter_mut().flat_map(|m| &mut m.figures);
        for figure in jax.filter(|figure| figure.side.name == "jax-scan") {
            (figure.samples, figure.status) = (Vec::new(), Status::Absent("a \"b\"".to_owned()));
        }
        let text = text(&machine::tests::invented(), &results);
        assert!(text.starts_with("# Written by `cargo xtask bench`.\n# machine: Some(R) CPU-7"));
        let row = format!("{LONG},ours,3,0.25,0.25,s,1,triad,0.8,ok");
        assert!(text.lines().any(|line| line == row), "{text}");
        let row = format!("{LONG},jax-scan,0,,,s,,,,\"absent: a \"\"b\"\"\"");
        assert!(text.lines().any(|line| line == row), "{text}");
        let columns = COLUMNS.split(',').count();
        let rows = text.lines().filter(|line| !line.starts_with('#') && !line.contains('"'));
        assert!(rows.map(|row| row.split(',').count()).all(|count| count == columns));
    }

    #[test]
    fn the_record_lies_with_its_machine_and_day() {
        let path = path(Path::new("/w"), &machine::tests::invented());
        assert_eq!(path, Path::new("/w/benches/record/some-cpu-7-2-0ghz-2-cores/2026-01-02.csv"));
    }
}
