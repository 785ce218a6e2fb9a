//! What came of a run.

use std::fmt::Write;

use serde_json::Value;

/// Everything that was compared.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) versions: Value,
    pub(super) cases: Vec<Case>,
    pub(super) trajectories: Vec<Trajectory>,
}

/// A case in one row.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// Quantities that were compared.
    pub(super) count: usize,
    /// Logits or outputs: our error and the reference's.
    pub(super) output: Pair,
    /// The gradient that comes nearest to what is allowed: our error and the reference's.
    pub(super) gradient: Pair,
    /// Quantities that would be beyond what is allowed if the reference had been run but once.
    pub(super) beyond_once: usize,
    /// The largest error in double precision.
    pub(super) double: f64,
    pub(super) greedy: Option<(u64, u64)>,
    /// Whether the reference loaded our weights.
    pub(super) back: Option<bool>,
    pub(super) problems: Vec<String>,
}

/// Relative RMS errors in single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pair {
    pub(super) ours: f64,
    pub(super) reference: f64,
}

impl Pair {
    /// How much of what is allowed is used, 2 x reference + 1e-6.
    fn used(self) -> f64 {
        self.ours / (2.0 * self.reference + 1e-6)
    }
}

/// A training run.
#[derive(Debug)]
pub(super) struct Trajectory {
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) loss_f32: f64,
    pub(super) loss_f64: f64,
    pub(super) drift: f64,
    pub(super) final_f32: f64,
    pub(super) final_f64: f64,
    pub(super) final_drift: f64,
}

/// The head of the table that [`Outcome::add_case`] gives the rows of.
pub(super) fn header() -> String {
    format!(
        "     {:78} {:>7}  {:>12}  {:>9}  {:>14}  {:>9}  {:>8}  greedy",
        "case", "values", "output, ours", "reference", "gradient, ours", "reference", "all, f64"
    )
}

impl Outcome {
    /// Takes the line of a case and gives its row.
    pub(super) fn add_case(&mut self, line: &Value) -> String {
        let case = case(line);
        let verdict = if case.problems.is_empty() { "ok" } else { "FAIL" };
        let greedy = case.greedy.map_or_else(String::new, |(equal, all)| format!("{equal}/{all}"));
        let row = format!(
            "{verdict:4} {:78} {:7}  {:12.1e}  {:9.1e}  {:14.1e}  {:9.1e}  {:8.1e}  {greedy}",
            case.name,
            case.count,
            case.output.ours,
            case.output.reference,
            case.gradient.ours,
            case.gradient.reference,
            case.double,
        );
        self.cases.push(case);
        row
    }

    /// Takes the line about weights that came back.
    pub(super) fn add_back(&mut self, line: &Value) {
        let name = line["case"].as_str().unwrap_or_default();
        let Some(case) = self.cases.iter_mut().find(|case| case.name == name) else { return };
        let ok = line["ok"] == true;
        case.back = Some(ok);
        if !ok {
            let problem = line["problem"].as_str().unwrap_or("for a reason that it does not give");
            case.problems.push(format!("the reference does not load our weights: {problem}"));
        }
    }

    pub(super) fn add_trajectory(&mut self, line: &Value) {
        let from = &line["trajectory"];
        let number = |key: &str| from[key].as_f64().unwrap_or(f64::INFINITY);
        let name = from["case"].as_str().unwrap_or_default();
        self.trajectories.push(Trajectory {
            name: name.trim_start_matches("trajectory-").to_owned(),
            ok: line["ok"] == true,
            loss_f32: number("loss_f32"),
            loss_f64: number("loss_f64"),
            drift: number("drift"),
            final_f32: number("final_f32"),
            final_f64: number("final_f64"),
            final_drift: number("final_drift"),
        });
    }

    /// What is wrong, one line each.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for case in &self.cases {
            failures.extend(case.problems.iter().map(|p| format!("{}: {p}", case.name)));
            if case.back.is_none() {
                failures.push(format!("{}: the reference was not given our weights", case.name));
            }
        }
        for run in self.trajectories.iter().filter(|run| !run.ok) {
            failures.push(format!("trajectory {}: see its row", run.name));
        }
        if self.cases.is_empty() {
            failures.push("no case was run".to_owned());
        }
        failures
    }

    pub(super) fn summary(&self) -> String {
        let compared: usize = self.cases.iter().map(|case| case.count).sum();
        let good = self.cases.iter().filter(|case| case.problems.is_empty()).count();
        let back = self.cases.iter().filter(|case| case.back == Some(true)).count();
        let greedy = self.cases.iter().filter_map(|case| case.greedy);
        let (equal, all) = greedy.fold((0, 0), |sum, (e, a)| (sum.0 + e, sum.1 + a));
        let double = self.cases.iter().map(|case| case.double).fold(0.0, f64::max);
        let mut text = format!(
            "{good} of {} cases agree: {compared} quantities, largest difference in f64 {double:.1e}; \
             {equal} of {all} greedy tokens are equal; the reference loads the weights of {back}",
            self.cases.len(),
        );
        for run in &self.trajectories {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "\ntrajectory {:10} {:4} largest relative difference of a loss: f32 {:.1e} (the \
                 reference's own drift {:.1e}), f64 {:.1e}",
                run.name,
                if run.ok { "ok" } else { "FAIL" },
                run.loss_f32,
                run.drift,
                run.loss_f64
            );
        }
        text
    }
}

fn case(line: &Value) -> Case {
    let report = &line["report"];
    let name = report["case"].as_str().or(line["case"].as_str()).unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    if let Some(error) = line["error"].as_str() {
        problems.push(error.to_owned());
    }
    let listed = report["problems"].as_array().into_iter().flatten();
    problems.extend(listed.filter_map(|p| Some(p.as_str()?.to_owned())));
    let (mut output, mut gradient, mut double): (Pair, Pair, f64) = Default::default();
    let mut beyond_once = 0;
    let quantities = report["quantities"].as_array().map(Vec::as_slice).unwrap_or_default();
    for quantity in quantities {
        let number = |key: &str| quantity[key].as_f64().unwrap_or(f64::INFINITY);
        let pair = Pair { ours: number("ours"), reference: number("reference") };
        let quantity_name = quantity["name"].as_str().unwrap_or_default();
        if matches!(quantity_name, "logits" | "y") {
            output = pair;
        } else if pair.used() >= gradient.used() {
            gradient = pair;
        }
        double = double.max(number("ours_f64"));
        let once = Pair { ours: pair.ours, reference: number("once") };
        beyond_once += usize::from(once.used() > 1.0);
        if quantity["ok"] != true {
            problems.push(format!(
                "{quantity_name}: error {:.1e}, the reference's own {:.1e}; in f64 {:.1e}",
                pair.ours,
                pair.reference,
                number("ours_f64")
            ));
        }
    }
    let greedy = report["greedy"]
        .as_array()
        .and_then(|pair| Some((pair.first()?.as_u64()?, pair.get(1)?.as_u64()?)));
    if let Some((equal, all)) = greedy.filter(|(equal, all)| equal != all) {
        problems.push(format!("greedy generation differs after {equal} of {all} tokens"));
    }
    Case {
        name,
        count: quantities.len(),
        output,
        gradient,
        beyond_once,
        double,
        greedy,
        back: None,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(ours: f64, ok: bool) -> Value {
        json!({"ok": ok, "report": {"case": "a", "problems": [], "greedy": [3, 4], "quantities": [
            {"name": "y", "ours": 1e-7, "reference": 2e-7, "once": 1e-7, "ours_f64": 1e-16, "ok": true},
            {"name": "grad.w", "ours": ours, "reference": 1e-7, "once": 2e-7, "ours_f64": 2e-16, "ok": ok},
        ]}})
    }

    #[test]
    fn everything_that_is_wrong_is_listed() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.failures(), ["no case was run"]);
        let row = outcome.add_case(&line(5e-5, false));
        assert!(row.starts_with("FAIL a") && row.ends_with("3/4"), "{row}");
        outcome.add_back(&json!({"case": "a", "ok": false, "problem": "missing w"}));
        let failures = outcome.failures().join("\n");
        for part in ["grad.w: error 5.0e-5", "after 3 of 4 tokens", "missing w"] {
            assert!(failures.contains(part), "{failures}");
        }
        outcome.add_case(&json!({"ok": false, "case": "b", "error": "torn"}));
        let failures = outcome.failures().join("\n");
        assert!(
            failures.contains("b: torn") && failures.contains("b: the reference was not given")
        );
    }
}
