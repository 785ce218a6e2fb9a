//! Records as event files of TensorBoard.
//!
//! A file is a sequence of records framed as TFRecord: the length (u64, little-endian), its masked CRC-32C, the
//! data, and its masked CRC-32C. The data is a protocol buffer `tensorflow.Event` (tensorflow/core/util/event.proto,
//! tensorflow/core/framework/summary.proto), of which a few fields are needed.

use super::memory::{filled, lower_edge};
use super::{MetricsError, Record};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes event files, a new one for each part of a run.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
    /// When the run would have begun, had it never paused: TensorBoard shows times of the clock.
    began: f64,
}

impl EventWriter {
    /// Begins a file in `folder` with the records so far, in place of the files that are there.
    pub fn create(folder: impl AsRef<Path>, records: &[Record]) -> Result<Self, MetricsError> {
        let folder = folder.as_ref();
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        let path = folder.join(format!("events.out.tfevents.{:010.0}.gateloop", now.floor()));
        let failed = |source| MetricsError::Io { action: "create", path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        let file = File::create(&path).map_err(failed)?;
        let began = now - records.last().map_or(0.0, |record| record.time_s);
        let mut writer = Self { file, path, began };
        let version = bytes_field(3, b"brain.Event:2");
        writer.append(&[fixed64_field(1, now), version].concat())?;
        records.iter().try_for_each(|record| writer.write(record))?;
        Ok(writer)
    }

    /// Writes one record: a scalar for each of its quantities, a histogram for each of its counts that is not empty.
    pub fn write(&mut self, record: &Record) -> Result<(), MetricsError> {
        let values = record.values.iter().map(|(key, &value)| {
            let scalar = [bytes_field(1, key.as_bytes()), fixed32_field(2, value as f32)].concat();
            bytes_field(1, &scalar)
        });
        let histograms = record.counts.iter().filter_map(|(key, counts)| {
            let histogram = bytes_field(5, &histogram(counts)?);
            Some(bytes_field(1, &[bytes_field(1, key.as_bytes()), histogram].concat()))
        });
        let summary: Vec<u8> = values.chain(histograms).flatten().collect();
        let event = [
            fixed64_field(1, self.began + record.time_s),
            varint_field(2, record.step),
            bytes_field(5, &summary),
        ];
        self.append(&event.concat())
    }

    fn append(&mut self, data: &[u8]) -> Result<(), MetricsError> {
        self.file.write_all(&framed(data)).map_err(|source: io::Error| MetricsError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}

/// A `HistogramProto` of a gate's memory in log2 of tokens: the bins from the first to the last that holds something.
///
/// The sums are those of the bins' middles.
fn histogram(counts: &[u64]) -> Option<Vec<u8>> {
    let (start, end) = filled(counts)?;
    let bins = || (start..end).map(|bin| (counts[bin] as f64, lower_edge(bin + 1)));
    let sum = |of: fn(f64) -> f64| {
        let middle = |bin| f64::midpoint(lower_edge(bin), lower_edge(bin + 1));
        (start..end).map(|bin| counts[bin] as f64 * of(middle(bin))).sum::<f64>()
    };
    let packed = |numbers: Vec<f64>| numbers.into_iter().flat_map(f64::to_le_bytes).collect();
    let limits: Vec<u8> = packed(bins().map(|(_, limit)| limit).collect());
    let sizes: Vec<u8> = packed(bins().map(|(count, _)| count).collect());
    let fields = [
        fixed64_field(1, lower_edge(start)),
        fixed64_field(2, lower_edge(end)),
        fixed64_field(3, bins().map(|(count, _)| count).sum()),
        fixed64_field(4, sum(|x| x)),
        fixed64_field(5, sum(|x| x * x)),
        bytes_field(6, &limits),
        bytes_field(7, &sizes),
    ];
    Some(fields.concat())
}

fn framed(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    [&len[..], &masked_crc(&len), data, &masked_crc(data)].concat()
}

/// Rotated and shifted, as the format has it: a checksum of data with checksums in it is then no weaker.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// The number of a field and how it is encoded.
fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint_field(field: u8, value: u64) -> Vec<u8> {
    [vec![key(field, 0)], varint(value)].concat()
}

fn fixed64_field(field: u8, value: f64) -> Vec<u8> {
    [&[key(field, 1)][..], &value.to_le_bytes()].concat()
}

fn fixed32_field(field: u8, value: f32) -> Vec<u8> {
    [&[key(field, 5)][..], &value.to_le_bytes()].concat()
}

fn bytes_field(field: u8, value: &[u8]) -> Vec<u8> {
    [&[key(field, 2)][..], &varint(value.len() as u64), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // The CRC-32C of 32 zeros is in RFC 3720, B.4.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let expected = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), expected.to_le_bytes());
    }

    #[test]
    fn numbers_are_encoded_as_protocol_buffers_are() {
        assert_eq!(varint_field(2, 300), [0x10, 0xac, 0x02]);
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(u64::MAX).len(), 10);
        assert_eq!(bytes_field(1, b"ab"), [0x0a, 2, b'a', b'b']);
        assert_eq!(fixed32_field(2, 1.0), [0x15, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn a_histogram_has_the_bins_that_are_filled() {
        let bytes = histogram(&[0, 0, 3, 0, 1]).unwrap();
        let numbers = |bytes: &[u8]| -> Vec<f64> {
            bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let scalars: Vec<f64> =
            (0..5).flat_map(|n| numbers(&bytes[9 * n + 1..9 * n + 9])).collect();
        assert_eq!(scalars, [1.0, 2.5, 4.0, 3.75 + 2.25, 3.0 * 1.5625 + 5.0625]);
        assert_eq!(bytes[45..47], [6 << 3 | 2, 24]);
        assert_eq!(numbers(&bytes[47..71]), [1.5, 2.0, 2.5]);
        assert_eq!(bytes[71..73], [7 << 3 | 2, 24]);
        assert_eq!(numbers(&bytes[73..]), [3.0, 0.0, 1.0]);
        assert!(histogram(&[0, 0]).is_none());
    }

    #[test]
    fn a_file_begins_with_what_was_recorded_before_and_replaces_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let record = |step| Record::new(step, step as f64).with("train/loss", 2.0);
        fs::write(folder.path().join("events.out.tfevents.1.gateloop"), "old").unwrap();
        fs::write(folder.path().join("notes"), "kept").unwrap();
        let mut writer = EventWriter::create(folder.path(), &[record(1), record(2)]).unwrap();
        writer.write(&record(300)).unwrap();
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let bytes = fs::read(&writer.path).unwrap();
        let (mut at, mut steps) = (0, Vec::new());
        while at < bytes.len() {
            let len = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let data = &bytes[at + 12..at + 12 + len];
            assert_eq!(bytes[at + 8..at + 12], masked_crc(&bytes[at..at + 8]));
            assert_eq!(bytes[at + 12 + len..at + 16 + len], masked_crc(data));
            // Time first, nine bytes, then the step.
            steps.push(data[9..12].to_vec());
            at += 16 + len;
        }
        assert_eq!(steps.len(), 4);
        assert_eq!(steps[1..], [vec![0x10, 1, 0x2a], vec![0x10, 2, 0x2a], vec![0x10, 0xac, 0x02]]);
    }
}
