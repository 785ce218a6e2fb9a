//! Threads of which the order of tasks can be told.

use gateloop_scan::ParallelFor;

/// As many threads as it says, one after the other, the last task first.
#[derive(Debug)]
pub(crate) struct Backwards(pub(crate) usize);

impl ParallelFor for Backwards {
    fn threads(&self) -> usize {
        self.0
    }
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(task);
    }
}
