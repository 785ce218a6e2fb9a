//! What is answered, as JSON.

use crate::error::{Problem, Result};
use crate::memory::Peak;
use serde_json::{Value, json};

/// `{"seconds": s}`, or why there is no time.
pub(crate) fn seconds(result: Result<f64>) -> Value {
    or_problem(result.map(|seconds| json!({ "seconds": seconds })))
}

/// `{"before": bytes, "peak": bytes}`
pub(crate) fn peak(result: Result<Peak>) -> Value {
    or_problem(result.map(|peak| json!({ "before": peak.before, "peak": peak.peak })))
}

/// `{}`
pub(crate) fn done(result: Result<()>) -> Value {
    or_problem(result.map(|()| json!({})))
}

fn or_problem(result: Result<Value>) -> Value {
    match result {
        Ok(value) => value,
        Err(problem @ (Problem::Unavailable(_) | Problem::Unknown { .. })) => {
            json!({ "unavailable": problem.to_string() })
        }
        Err(problem) => json!({ "wrong": problem.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_and_an_absent_one_are_told_apart() {
        assert_eq!(seconds(Ok(0.5)), json!({ "seconds": 0.5 }));
        assert_eq!(done(Err(Problem::Wrong("h[3]".into()))), json!({ "wrong": "h[3]" }));
        let absent = done(Err(Problem::Unavailable("no AVX".into())));
        assert_eq!(absent, json!({ "unavailable": "no AVX" }));
        let unknown = done(Err(Problem::Unknown { key: "x@y".into() }));
        assert!(unknown["unavailable"].as_str().is_some_and(|why| why.contains("`x@y`")));
    }
}
