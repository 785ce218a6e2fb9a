//! Tests of the metrics file and the picture.

use std::fs;
use std::path::PathBuf;

use super::plot::{Axis, Run, loss_curve};
use super::*;

fn record(step: u64) -> Record {
    Record::new(step, step as f64 * 0.5).with("train/loss", 2.0 / step as f64).with("lr", 1e-3)
}

fn written(steps: impl IntoIterator<Item = u64>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut writer = MetricsWriter::create(&path).unwrap();
    for step in steps {
        writer.write(&record(step)).unwrap();
    }
    (folder, path)
}

fn steps(path: &PathBuf) -> Vec<u64> {
    read(path).unwrap().iter().map(|record| record.step).collect()
}

fn add(path: &PathBuf, bytes: &[u8]) {
    let mut all = fs::read(path).unwrap();
    all.extend_from_slice(bytes);
    fs::write(path, all).unwrap();
}

#[test]
fn a_record_is_one_flat_object_a_line() {
    let (_folder, path) = written([10, 20]);
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    assert_eq!(first, r#"{"step":10,"time_s":5.0,"lr":0.001,"train/loss":0.2}"#);
    assert_eq!(read(&path).unwrap(), [record(10), record(20)]);
    assert!(text.ends_with('\n'));
}

#[test]
fn values_that_are_not_finite_are_null_and_come_back_as_nan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut writer = MetricsWriter::create(&path).unwrap();
    let record = Record::new(1, f64::INFINITY).with("train/loss", f64::NAN).with("lr", 0.5);
    writer.write(&record).unwrap();
    assert!(fs::read_to_string(writer.path()).unwrap().contains(r#""train/loss":null"#));
    let back = &read(&path).unwrap()[0];
    assert!(back.values["train/loss"].is_nan() && back.time_s.is_nan());
    assert_eq!(back.values["lr"], 0.5);
}

#[test]
fn histograms_are_arrays_beside_the_quantities() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let with = record(10).with_counts("gates/layers.0.mixer/log2_memory", vec![0, 3, 1]);
    let mut writer = MetricsWriter::create(&path).unwrap();
    writer.write(&with).unwrap();
    writer.write(&record(20)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().next().unwrap(),
        r#"{"step":10,"time_s":5.0,"gates/layers.0.mixer/log2_memory":[0,3,1],"lr":0.001,"train/loss":0.2}"#
    );
    assert_eq!(read(&path).unwrap(), [with, record(20)]);
    add(&path, b"{\"step\":30,\"time_s\":1.0,\"gates\":[0.5]}\n");
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl:3:") && error.contains("array of counts"), "{error}");
}

#[test]
fn a_torn_last_line_is_left_out_and_written_over() {
    let (_folder, path) = written([1, 2]);
    add(&path, br#"{"step":3,"time_"#);
    assert_eq!(steps(&path), [1, 2]);
    MetricsWriter::append(&path).unwrap().write(&record(3)).unwrap();
    assert_eq!(steps(&path), [1, 2, 3]);
}

#[test]
fn a_last_line_without_its_newline_is_kept() {
    let (_folder, path) = written([1]);
    add(&path, br#"{"step":2,"time_s":1.0}"#);
    assert_eq!(steps(&path), [1, 2]);
    MetricsWriter::append(&path).unwrap().write(&record(3)).unwrap();
    assert_eq!(steps(&path), [1, 2, 3]);
}

#[test]
fn other_damage_is_an_error_with_its_line() {
    for damage in
        [&b"{\"step\":3\n"[..], b"\0\0\0\n", b"\xff\xfe\n", b"{\"step\":3,\"time_s\":\"x\"}\n"]
    {
        let (_folder, path) = written([1, 2]);
        add(&path, damage);
        let before = fs::read(&path).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, MetricsError::Damaged { line: 3, .. }), "{error}");
        assert!(error.to_string().contains("metrics.jsonl:3:"), "{error}");
        assert!(truncate_after(&path, 1).is_err() && MetricsWriter::append(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn appending_starts_a_file_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    MetricsWriter::append(&path).unwrap().write(&record(1)).unwrap();
    assert_eq!(steps(&path), [1]);
    MetricsWriter::create(&path).unwrap();
    assert_eq!(steps(&path), [0; 0]);
}

#[test]
fn records_after_a_step_are_dropped() {
    let (folder, path) = written([10, 20, 30, 40]);
    truncate_after(&path, 25).unwrap();
    assert_eq!(steps(&path), [10, 20]);
    truncate_after(&path, 25).unwrap();
    add(&path, b"{\"st");
    truncate_after(&path, 10).unwrap();
    assert_eq!(steps(&path), [10]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    truncate_after(folder.path().join("none.jsonl"), 3).unwrap();
}

#[test]
fn a_missing_file_or_folder_is_named() {
    for error in
        [read("no/such.jsonl").unwrap_err(), MetricsWriter::create("no/such.jsonl").unwrap_err()]
    {
        assert!(error.to_string().contains("no/such.jsonl"), "{error}");
    }
}

fn run_of(steps: u64) -> Vec<Record> {
    (1..=steps)
        .map(|step| {
            let loss = 1.5 + 4.0 / step as f64;
            let record = Record::new(step, 0.0).with("train/loss", loss);
            if step % 50 == 0 { record.with("valid/bpc", loss / 0.69 + 0.1) } else { record }
        })
        .collect()
}

#[test]
fn a_picture_has_title_axes_and_legend() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.svg");
    let (short, long) = (run_of(200), run_of(20_000));
    let runs = [Run { name: "short", records: &short }, Run { name: "a <b> & c", records: &long }];
    loss_curve(&runs, Axis::Step, "Two runs", &path).unwrap();
    let svg = fs::read_to_string(&path).unwrap();
    for part in ["<svg", "Two runs", "bits per character", "step", "short training, last", "20k"] {
        assert!(svg.contains(part), "no {part}");
    }
    assert!(svg.contains("a &lt;b&gt; &amp; c validation, last"));
    assert!(svg.len() < 200_000, "{}", svg.len());
}

#[test]
fn a_name_that_ends_in_png_makes_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let records = run_of(200);
    let draw = |name: &str, records: &[Record]| {
        let path = folder.path().join(name);
        loss_curve(&[Run { name: "", records }], Axis::Step, "title", &path).unwrap();
        resvg::tiny_skia::Pixmap::decode_png(&fs::read(&path).unwrap()).unwrap()
    };
    let picture = draw("loss.PNG", &records);
    assert_eq!((picture.width(), picture.height()), (1800, 1080));
    // The blue of the training curve is there, and another run is another picture.
    let blue = |pixel: &&resvg::tiny_skia::PremultipliedColorU8| {
        (pixel.red(), pixel.green(), pixel.blue()) == (0, 114, 178)
    };
    assert!(picture.pixels().iter().filter(blue).count() > 500);
    assert_ne!(draw("other.png", &run_of(100)).data(), picture.data());
}

#[test]
fn a_picture_of_another_kind_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let records = run_of(3);
    for name in ["loss.jpg", "loss", "png"] {
        let path = folder.path().join(name);
        let error =
            loss_curve(&[Run { name: "", records: &records }], Axis::Step, "", &path).unwrap_err();
        assert!(matches!(error, MetricsError::PictureFormat { .. }), "{error}");
        let message = error.to_string();
        assert!([name, ".svg", ".png"].iter().all(|part| message.contains(part)), "{message}");
        assert!(!path.exists());
    }
}

#[test]
fn any_records_can_be_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.svg");
    let one = vec![Record::new(0, 0.0).with("train/loss", 1.0)];
    let flat: Vec<_> = (0..9).map(|step| Record::new(step, 0.0).with("valid/bpc", 0.0)).collect();
    let holes: Vec<_> = (0..9)
        .map(|step| {
            Record::new(step, 0.0).with("train/loss", if step % 2 == 0 { f64::NAN } else { 1e300 })
        })
        .collect();
    for records in [&one, &flat, &holes] {
        loss_curve(&[Run { name: "", records }], Axis::Step, "", &path).unwrap();
    }
}

#[test]
fn without_a_loss_there_is_nothing_to_draw() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.svg");
    let records = [Record::new(1, 0.0).with("lr", 0.1).with("train/loss", f64::NAN)];
    for runs in [&[][..], &[Run { name: "a", records: &records }]] {
        let error = loss_curve(runs, Axis::Step, "", &path).unwrap_err();
        assert!(matches!(error, MetricsError::NothingToDraw { .. }), "{error}");
    }
    assert!(!path.exists());
}
