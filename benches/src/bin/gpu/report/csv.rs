//! The files of benches/record.

use super::results::Results;
use std::path::Path;
use std::{fs, io};

/// Writes what there is: `DAY-kernels.csv`, `DAY-peers.csv` and `DAY-model.csv`.
pub(super) fn write(results: &Results, folder: &Path, day: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let title = |by: &str| format!("# {}; written by {by}.", results.device);
    if !results.kernels.is_empty() {
        let by = title("the bench program `gpu` (gateloop-benches)");
        let head = format!("{by} Copy of 1 GiB: {:.0} GB/s.", results.copy);
        let columns =
            "work,dtype,batch,seqlen,channels,ms,gb_s,of_copy,of_copy_of_as_many,rel_error";
        let rows = results.kernels.iter().map(|kernel| {
            let [batch, seqlen, channels] = kernel.shape;
            let speed = kernel.speed.map_or(",,,".to_owned(), |speed| {
                let (ms, rate) = (speed.ms, speed.gb_s);
                format!("{ms},{rate},{},{}", speed.of_copy, speed.of_copy_of_as_many)
            });
            let (work, dtype, error) = (&kernel.work, &kernel.dtype, kernel.rel_error);
            format!("{work},{dtype},{batch},{seqlen},{channels},{speed},{error:.1e}")
        });
        settle(&folder.join(format!("{day}-kernels.csv")), &head, columns, rows)?;
    }
    if !results.peers.is_empty() {
        let rows = results.peers.iter().map(|peer| {
            let shape: Vec<String> = peer.shape.iter().map(u64::to_string).collect();
            let number = |of: Option<f64>| of.map_or(String::new(), |of| of.to_string());
            let [ms, rate, error] = [peer.ms, peer.gb_s, peer.rel_error].map(number);
            let [work, name, trouble] = [&peer.work, &peer.name, &peer.trouble].map(|x| cell(x));
            format!(
                "{work},{name},{},{},{ms},{rate},{error},{trouble}",
                peer.dtype,
                shape.join("x")
            )
        });
        let columns = "work,peer,dtype,shape,ms,gb_s,rel_error,failed_or_error";
        let head = title("benches/peers/gpu_peers.py, in the same sitting as the kernels");
        settle(&folder.join(format!("{day}-peers.csv")), &head, columns, rows)?;
    }
    if !results.trainings.is_empty() || results.decoding.is_some() {
        let trainings = results.trainings.iter();
        let trainings =
            trainings.map(|run| format!("train,{},{},tokens/s", run.name, run.tokens_per_s));
        let decoding = results.decoding.iter().map(|told| format!("decode,,,{}", cell(told)));
        let head = title("the program `gateloop`, dim 512, depth 6, 32 x 1024 tokens a step");
        let rows = trainings.chain(decoding);
        settle(&folder.join(format!("{day}-model.csv")), &head, "work,run,value,unit", rows)?;
    }
    Ok(())
}

fn settle(
    path: &Path,
    head: &str,
    columns: &str,
    rows: impl Iterator<Item = String>,
) -> io::Result<()> {
    let lines = [head.to_owned(), columns.to_owned()].into_iter().chain(rows);
    let text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
    fs::write(path, text)
}

/// Quoted where it has to be.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
