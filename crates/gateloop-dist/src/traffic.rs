//! What a process has sent.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a group's operations since it was made. Bytes are those of the tensors that were given to the operations,
/// which is what an algorithm is judged by; what a backend makes of them on the wire is its own affair (a ring sends
/// 2 (N - 1) / N of the bytes of an all-reduce from each of N ranks).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// All-reduces.
    pub all_reduces: u64,
    /// Their bytes.
    pub all_reduced_bytes: u64,
    /// All-gathers.
    pub all_gathers: u64,
    /// The bytes that this rank gave to them.
    pub all_gathered_bytes: u64,
    /// Broadcasts.
    pub broadcasts: u64,
    /// Their bytes.
    pub broadcast_bytes: u64,
}

impl Traffic {
    /// What has been added since an earlier count.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            all_reduces: self.all_reduces - before.all_reduces,
            all_reduced_bytes: self.all_reduced_bytes - before.all_reduced_bytes,
            all_gathers: self.all_gathers - before.all_gathers,
            all_gathered_bytes: self.all_gathered_bytes - before.all_gathered_bytes,
            broadcasts: self.broadcasts - before.broadcasts,
            broadcast_bytes: self.broadcast_bytes - before.broadcast_bytes,
        }
    }
}

/// One kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    pub(crate) fn add(&self, bytes: u64) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.operations.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// The counters of a group.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) all_reduce: Counter,
    pub(crate) all_gather: Counter,
    pub(crate) broadcast: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> Traffic {
        let (all_reduces, all_reduced_bytes) = self.all_reduce.read();
        let (all_gathers, all_gathered_bytes) = self.all_gather.read();
        let (broadcasts, broadcast_bytes) = self.broadcast.read();
        Traffic {
            all_reduces,
            all_reduced_bytes,
            all_gathers,
            all_gathered_bytes,
            broadcasts,
            broadcast_bytes,
        }
    }
}
