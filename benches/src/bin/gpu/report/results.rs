//! The lines that the programs of a run have printed.

use serde_json::Value;
use std::path::Path;
use std::{fs, io};

/// A kernel on a shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kernel {
    pub(crate) work: String,
    pub(crate) dtype: String,
    pub(crate) shape: [u64; 3],
    pub(crate) rel_error: f64,
    /// None where the answer was wrong.
    pub(crate) speed: Option<Speed>,
}

/// How fast it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    pub(crate) ms: f64,
    pub(crate) gb_s: f64,
    /// Of the rate of a copy of 1 GiB.
    pub(crate) of_copy: f64,
    /// Of that of a copy of as many bytes.
    pub(crate) of_copy_of_as_many: f64,
}

/// Another program's work on a shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Peer {
    pub(crate) work: String,
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// None where it failed.
    pub(crate) ms: Option<f64>,
    pub(crate) gb_s: Option<f64>,
    pub(crate) rel_error: Option<f64>,
    /// Why there is no time.
    pub(crate) trouble: String,
}

/// A training run: its folder's name behind `train_`, and its last tokens/s.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Training {
    pub(crate) name: String,
    pub(crate) tokens_per_s: f64,
}

/// What a run has left.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// Name and driver, as `nvidia-smi` says, or the name alone.
    pub(crate) device: String,
    /// GB/s of a copy of 1 GiB.
    pub(crate) copy: f64,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) trainings: Vec<Training>,
    /// What the program says of a text that it wrote.
    pub(crate) decoding: Option<String>,
}

impl Results {
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut results = Self::default();
        for line in lines(&folder.join("kernels.jsonl"))? {
            results.take_kernel(&line);
        }
        if let Ok(device) = fs::read_to_string(folder.join("device.txt")) {
            device.trim().clone_into(&mut results.device);
        }
        results.peers = lines(&folder.join("peers.jsonl"))?.iter().map(peer).collect();
        let mut entries: Vec<_> = fs::read_dir(folder)
            .and_then(Iterator::collect::<io::Result<_>>)
            .map_err(|error| named(folder, &error.to_string()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_prefix("train_") else { continue };
            let metrics = lines(&entry.path().join("metrics.jsonl"))?;
            let rate = |line: &Value| line["tokens_per_s"].as_f64();
            if let Some(tokens_per_s) = metrics.iter().rev().find_map(rate) {
                results.trainings.push(Training { name: name.to_owned(), tokens_per_s });
            }
        }
        let told = fs::read_to_string(folder.join("decode.log")).unwrap_or_default();
        let of_texts = told.lines().rfind(|line| line.starts_with("texts:"));
        results.decoding = of_texts.map(str::to_owned);
        Ok(results)
    }

    fn take_kernel(&mut self, line: &Value) {
        if let Some(device) = line["device"].as_str() {
            device.clone_into(&mut self.device);
        } else if line["work"] == "copy" {
            self.copy = line["gb_s"].as_f64().unwrap_or(f64::NAN);
        } else {
            let number = |key: &str| line[key].as_f64();
            let speed = |ms| {
                Some(Speed {
                    ms,
                    gb_s: number("gb_s")?,
                    of_copy: number("of_copy")?,
                    of_copy_of_as_many: number("of_copy_of_as_many")?,
                })
            };
            let shape = whole(&line["shape"]);
            self.kernels.push(Kernel {
                work: text(&line["work"]),
                dtype: text(&line["dtype"]),
                shape: [0, 1, 2].map(|i| shape.get(i).copied().unwrap_or_default()),
                rel_error: number("rel_error").unwrap_or(f64::NAN),
                speed: number("ms").and_then(speed),
            });
        }
    }

    /// A kernel's speed on a shape, if its answer was right.
    pub(crate) fn speed(&self, work: &str, dtype: &str, shape: [u64; 3]) -> Option<Speed> {
        let is = |kernel: &&Kernel| {
            kernel.work == work && kernel.dtype == dtype && kernel.shape == shape
        };
        self.kernels.iter().find(is)?.speed
    }

    /// The shortest time of the peers whose name begins so.
    pub(crate) fn peer_ms(
        &self,
        work: &str,
        name: &str,
        dtype: &str,
        shape: &[u64],
    ) -> Option<f64> {
        let is = |peer: &&Peer| {
            peer.work == work
                && peer.name.starts_with(name)
                && peer.dtype == dtype
                && peer.shape == shape
        };
        self.peers.iter().filter(is).filter_map(|peer| peer.ms).min_by(f64::total_cmp)
    }
}

fn peer(line: &Value) -> Peer {
    let number = |key: &str| line[key].as_f64();
    let wrong = line["failed"].as_bool() == Some(true);
    Peer {
        work: text(&line["work"]),
        name: text(&line["peer"]),
        dtype: text(&line["dtype"]),
        shape: whole(&line["shape"]),
        ms: number("ms"),
        gb_s: number("gb_s"),
        rel_error: number("rel_error"),
        trouble: if wrong { "answer wrong".to_owned() } else { text(&line["error"]) },
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn whole(value: &Value) -> Vec<u64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// The objects of a file, one a line; none of a file that is not there.
fn lines(path: &Path) -> io::Result<Vec<Value>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| named(path, &error.to_string()))?,
    };
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| named(path, &format!("line {}: {error}", i + 1)))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

fn named(path: &Path, problem: &str) -> io::Error {
    io::Error::other(format!("{}: {problem}", path.display()))
}
