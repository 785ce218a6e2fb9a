//! What Cargo says of the programs it has built (`--message-format=json-render-diagnostics`).

use std::path::PathBuf;

use serde_json::Value;

/// A program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Artifact {
    /// Cargo's identifier of the package; its name is part of it.
    pub(crate) package: String,
    /// The target: a binary, a test, an example.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Artifact {
    /// From a line of Cargo's, if it tells of a program.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" {
            return None;
        }
        Some(Self {
            package: message["package_id"].as_str().unwrap_or_default().to_owned(),
            name: message["target"]["name"].as_str()?.to_owned(),
            path: message["executable"].as_str()?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///x/gateloop-nn#0.1.0","target":{"name":"cuda"},"executable":"/x/cuda-1"}"#;
        let artifact = Artifact::from_line(line).unwrap();
        assert_eq!((artifact.name.as_str(), artifact.path), ("cuda", "/x/cuda-1".into()));
        assert!(artifact.package.contains("gateloop-nn"));
        assert_eq!(Artifact::from_line(&line.replace("\"/x/cuda-1\"", "null")), None, "a library");
        assert_eq!(Artifact::from_line(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(Artifact::from_line("warning: text"), None);
    }
}
