//! The tables on the terminal.

use super::format;
use super::results::{Measured, Results, Status};
use super::targets::targets;
use crate::table::aligned;

/// A work and its sides, once it is measured.
pub(crate) fn work(measured: &Measured) -> String {
    let headings = ["", "median", "min", "samples", "over ours", "of the limit", ""];
    let mut rows = vec![headings.map(str::to_owned)];
    for figure in &measured.figures {
        let quantity = |value: Option<f64>| {
            value.map_or_else(String::new, |v| format::quantity(measured.work.quantity, v))
        };
        let or_nothing =
            |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(String::new, show);
        let remark = match &figure.status {
            Status::Good => String::new(),
            Status::Failed(why) => format!("FAILED: {why}"),
            Status::Absent(why) => format!("not measured: {why}"),
        };
        rows.push([
            format!("  {}", figure.side.title),
            quantity(figure.median()),
            quantity(figure.min()),
            figure.samples.len().to_string(),
            or_nothing(measured.ratio(figure), format::digits),
            or_nothing(measured.share(figure), format::percent),
            remark,
        ]);
    }
    format!("{}\n{}", measured.work.name, aligned(&rows))
}

/// The targets that this run has figures for; nothing where there is none.
pub(crate) fn target_table(results: &Results) -> String {
    let headings = ["", "target", "measured", ""];
    let mut rows = vec![headings.map(str::to_owned)];
    for target in targets() {
        let Some(value) = target.value(results) else { continue };
        let verdict = if target.is_met(value) { "met" } else { "MISSED" };
        let (bound, value) = (format::bound(target.bound), format::digits(value));
        rows.push([target.what, bound, value, verdict.to_owned()]);
    }
    if rows.len() == 1 { String::new() } else { aligned(&rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::scans::LONG;
    use crate::bench::results::tests::invented;

    #[test]
    fn rows_say_what_became_of_a_side() {
        let mut results = invented(|_, side| if side == "ours" { 0.25 } else { 0.2 });
        let long = results.0.iter_mut().find(|m| m.work.name == LONG).unwrap();
        let figure = &mut long.figures[3];
        (figure.samples, figure.status) = (Vec::new(), Status::Failed("h[3] is 1".to_owned()));
        let text = work(long);
        assert!(text.contains("250 ms") && text.contains("80 %"), "{text}");
        assert!(text.contains("FAILED: h[3] is 1"), "{text}");
    }

    #[test]
    fn a_target_is_met_missed_or_left_out() {
        let text = target_table(&invented(|_, side| if side == "ours" { 1.0 } else { 7.0 }));
        let line = |part: &str| text.lines().find(|line| line.contains(part)).unwrap().to_owned();
        assert!(line("times jax associative_scan").ends_with("met"), "{text}");
        assert!(line("times the jax gradient").ends_with("MISSED"), "{text}");
        assert_eq!(target_table(&Results::default()), "");
    }
}
