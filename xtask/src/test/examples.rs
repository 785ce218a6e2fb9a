//! The examples of the workspace, from Cargo's own account of it.

use std::process::Stdio;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// An example and the package it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) package: String,
    pub(super) name: String,
}

/// Every example of every member.
pub(super) fn find(workspace: &Workspace) -> Result<Vec<Example>> {
    let bad = |reason: String| Error::BadAnswer { what: "cargo metadata", reason };
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Spawn { program: "cargo".to_owned(), source })?;
    let metadata = serde_json::from_slice(&output.stdout).map_err(|e| bad(e.to_string()))?;
    among(&metadata).ok_or_else(|| bad("it names no packages".to_owned()))
}

fn among(metadata: &Value) -> Option<Vec<Example>> {
    let mut examples = Vec::new();
    for package in metadata["packages"].as_array()? {
        for target in package["targets"].as_array()? {
            if target["kind"].as_array()?.iter().any(|kind| kind == "example") {
                examples.push(Example {
                    package: package["name"].as_str()?.to_owned(),
                    name: target["name"].as_str()?.to_owned(),
                });
            }
        }
    }
    Some(examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_told_from_other_targets() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "gateloop-scan",
            "targets": [
                { "name": "gateloop_scan", "kind": ["lib"] },
                { "name": "one_scan", "kind": ["example"] },
            ],
        }]});
        let one = Example { package: "gateloop-scan".into(), name: "one_scan".into() };
        assert_eq!(among(&metadata), Some(vec![one]));
        assert_eq!(among(&serde_json::json!({})), None);
    }
}
