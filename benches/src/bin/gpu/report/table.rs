//! What was measured beside what it should be.

use super::results::{Results, Speed};
use std::fmt;

/// Bytes from which a kernel should be bound by the memory alone.
const LARGE: f64 = 64e6;
/// Bytes below which a launch should be all that shows.
const SMALL: f64 = 8e6;

/// A line of the table.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    what: String,
    measured: String,
    target: String,
    /// None where there is no target.
    met: Option<bool>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.met {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        };
        write!(f, "{:<62} {:>22} {:>10}  {verdict}", self.what, self.measured, self.target)
    }
}

/// The head of the table and every row that there are figures for.
pub(crate) fn rows(results: &Results) -> Vec<Row> {
    let head = Row {
        what: format!("{}, a copy: {:.0} GB/s", results.device, results.copy),
        measured: "measured".to_owned(),
        target: "at least".to_owned(),
        met: None,
    };
    let mut rows = vec![head];
    shares(results, &mut rows);
    peers(results, &mut rows);
    training(results, &mut rows);
    rows
}

/// The target for a kernel's share of a copy; none where none was set.
fn target_share(work: &str, dtype: &str) -> Option<f64> {
    match (work, dtype) {
        ("scan", "f32") => Some(0.90),
        ("scan" | "scan_adjoint", "f32" | "c64") | ("gate_loop" | "gate_loop_adjoint", "f32") => {
            Some(0.85)
        }
        _ => None,
    }
}

fn shares(results: &Results, rows: &mut Vec<Row>) {
    for kernel in &results.kernels {
        let [batch, seqlen, channels] = kernel.shape;
        let what = format!("{} {} ({batch}, {seqlen}, {channels})", kernel.work, kernel.dtype);
        let Some(Speed { ms, gb_s, of_copy, of_copy_of_as_many }) = kernel.speed else {
            let (measured, target) = (format!("wrong by {:.1e}", kernel.rel_error), String::new());
            rows.push(Row { what, measured, target, met: Some(false) });
            continue;
        };
        let bytes = gb_s * ms * 1e6;
        let target = target_share(&kernel.work, &kernel.dtype).filter(|_| bytes >= LARGE);
        let measured = if bytes < SMALL {
            format!("{:.1} us", 1e3 * ms)
        } else {
            format!("{:.1} % / {:.1} %", 100.0 * of_copy, 100.0 * of_copy_of_as_many)
        };
        rows.push(Row {
            what,
            measured,
            target: target.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share)),
            met: target.map(|share| of_copy >= share),
        });
    }
}

/// How many times as long a peer takes, where both have the shape.
fn peers(results: &Results, rows: &mut Vec<Row>) {
    for kernel in results.kernels.iter().filter(|kernel| kernel.work == "scan") {
        let (Some(speed), shape) = (kernel.speed, kernel.shape) else { continue };
        let dtype = if kernel.dtype == "c64" { "complex64" } else { &kernel.dtype };
        for (name, least) in [("fla", 5.0), ("accelerated-scan", 1.0)] {
            let Some(ms) = results.peer_ms("scan_forward", name, dtype, &shape) else { continue };
            // The five times are asked for at one shape, and nowhere to be slower.
            let least = if shape == [16, 16_384, 128] { least } else { 1.0 };
            rows.push(times(format!("scan {dtype} {shape:?}: {name} takes"), ms / speed.ms, least));
        }
    }
    // In its own layout, which has the channels first: rates, for the shapes differ.
    let own = results.peers.iter().filter(|peer| peer.name.contains("[B,C,T]"));
    for peer in own.filter(|peer| peer.work == "scan_forward") {
        let dtype = if peer.dtype == "complex64" { "c64" } else { &peer.dtype };
        let ours = results.speed("scan", dtype, [8, 16_384, 1536]);
        if let (Some(ours), Some(theirs)) = (ours, peer.gb_s) {
            let what = format!("scan {dtype}, rate over that of {}", peer.name);
            rows.push(times(what, ours.gb_s / theirs, 1.0));
        }
    }
}

fn training(results: &Results, rows: &mut Vec<Row>) {
    for run in &results.trainings {
        let what = format!("training, {}", run.name);
        let measured = format!("{:.0} tokens/s", run.tokens_per_s);
        rows.push(Row { what, measured, target: String::new(), met: None });
        let (dtype, least) = match run.name.as_str() {
            "bf16" => ("bf16 autocast", 5.0),
            "f32" => ("f32", 1.0),
            _ => continue,
        };
        let eager = "reference Transformer, eager, max heads";
        if let Some(ms) = results.peer_ms("train_step", eager, dtype, &[32, 1024, 512]) {
            let ours = 1e3 * 32.0 * 1024.0 / run.tokens_per_s;
            rows.push(times(
                format!("training, {}: the reference takes", run.name),
                ms / ours,
                least,
            ));
        }
    }
    if let Some(told) = &results.decoding {
        let (what, target) = (format!("decoding, {told}"), String::new());
        rows.push(Row { what, measured: String::new(), target, met: None });
    }
}

fn times(what: String, ratio: f64, least: f64) -> Row {
    Row {
        what,
        measured: format!("{ratio:.2} times"),
        target: format!("{least:.0}"),
        met: Some(ratio >= least),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use std::path::PathBuf;
    use std::{env, fs, process};

    const KERNELS: &str = r#"{"device":"H100","multiprocessors":132}
{"work":"copy","bytes":1073741824,"gb_s":3000}
{"work":"scan","dtype":"f32","shape":[16, 16384, 128],"rel_error":1e-7,"ms":0.16,"gb_s":2500,"of_copy":0.833,"of_copy_of_as_many":0.88}
{"work":"scan","dtype":"f32","shape":[8, 16384, 1536],"rel_error":1e-7,"ms":0.8,"gb_s":2950,"of_copy":0.983,"of_copy_of_as_many":0.983}
{"work":"gate_loop","dtype":"f32","shape":[8, 16384, 1536],"rel_error":0.5,"failed":true}
{"work":"scan","dtype":"f32","shape":[1, 1, 512],"rel_error":1e-7,"ms":0.004,"gb_s":1.5,"of_copy":0.001,"of_copy_of_as_many":0.9}
"#;
    const PEERS: &str = r#"{"work":"scan_forward","peer":"fla 0.6.0 chunk_hgrn","shape":[16,16384,128],"dtype":"f32","ms":0.88,"gb_s":450}
{"work":"scan_forward","peer":"accelerated-scan 0.3.1 warp, [B,C,T]","shape":[8,65536,1536],"dtype":"f32","ms":4.2,"gb_s":2281}
{"work":"scan_forward","peer":"accelerated-scan, \"transposed\"","shape":[1,2,3],"dtype":"f32","failed":true,"rel_error":0.02}
{"work":"train_step","peer":"reference Transformer, eager, max heads, checkpointing off","shape":[32,1024,512],"dtype":"bf16 autocast","ms":110.0}
"#;

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("gateloop-report-{}-{name}", process::id()));
        fs::create_dir_all(folder.join("train_bf16")).unwrap();
        fs::write(folder.join("kernels.jsonl"), KERNELS).unwrap();
        fs::write(folder.join("peers.jsonl"), PEERS).unwrap();
        let rates = "{\"tokens_per_s\":1000}\n{\"tokens_per_s\":1638400.0}\n{\"other\":1}\n";
        fs::write(folder.join("train_bf16/metrics.jsonl"), rates).unwrap();
        folder
    }

    #[test]
    fn every_target_is_judged_by_its_figure() {
        let folder = folder("table");
        let results = Results::read(&folder).unwrap();
        let rows = rows(&results);
        let of = |what: &str| {
            let row = rows.iter().find(|row| row.what.starts_with(what));
            let row = row.unwrap_or_else(|| panic!("{what} in {rows:?}"));
            (row.measured.as_str(), row.met)
        };
        assert_eq!(of("scan f32 (16, 16384, 128)"), ("83.3 % / 88.0 %", Some(false)));
        assert_eq!(of("scan f32 (8, 16384, 1536)"), ("98.3 % / 98.3 %", Some(true)));
        assert_eq!(of("gate_loop f32"), ("wrong by 5.0e-1", Some(false)));
        assert_eq!(of("scan f32 (1, 1, 512)"), ("4.0 us", None));
        assert_eq!(of("scan f32 [16, 16384, 128]: fla"), ("5.50 times", Some(true)));
        assert_eq!(of("scan f32, rate over"), ("1.29 times", Some(true)));
        assert_eq!(of("training, bf16: the reference takes"), ("5.50 times", Some(true)));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_records_hold_what_was_measured() {
        let folder = folder("csv");
        super::super::run(&folder, "2026-01-02").unwrap();
        let read = |name: &str| {
            fs::read_to_string(folder.join(format!("record/2026-01-02-{name}.csv"))).unwrap()
        };
        let kernels = read("kernels");
        assert!(kernels.starts_with("# H100; written by"), "{kernels}");
        assert!(kernels.contains("\nscan,f32,16,16384,128,0.16,2500,0.833,0.88,1.0e-7\n"));
        assert!(kernels.contains("\ngate_loop,f32,8,16384,1536,,,,,5.0e-1\n"));
        let peers = read("peers");
        assert!(
            peers.contains(
                "\"accelerated-scan, \"\"transposed\"\"\",f32,1x2x3,,,0.02,answer wrong\n"
            )
        );
        assert!(read("model").contains("\ntrain,bf16,1638400,tokens/s\n"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let folder = folder("bad");
        fs::write(folder.join("peers.jsonl"), "{}\nnonsense\n").unwrap();
        let refused = Results::read(&folder).unwrap_err().to_string();
        assert!(refused.contains("peers.jsonl: line 2"), "{refused}");
        fs::remove_dir_all(folder).unwrap();
    }
}
