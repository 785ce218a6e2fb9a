//! Who runs the independent parts of a computation.

use core::fmt::Debug;

use rayon::prelude::*;

/// Threads that a scan may use.
///
/// The default is the current rayon pool. A program whose threads belong to something else, such as
/// a tensor library, lends those instead: two pools on the same cores wait for each other.
///
/// ```
/// use gateloop_scan::{Algorithm, ParallelFor, Scan, ScanShape};
///
/// /// Everything on the calling thread.
/// #[derive(Debug)]
/// struct Here;
///
/// impl ParallelFor for Here {
///     fn threads(&self) -> usize {
///         1
///     }
///     fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
///         (0..tasks).for_each(task);
///     }
/// }
///
/// let scan = Scan::new(ScanShape::new(1, 2, 1)?, &[0.5_f32; 2], &[1.0; 2])?.on(&Here);
/// assert_eq!(scan.run(Algorithm::Auto)?, [1.0, 1.5]);
/// # Ok::<(), gateloop_scan::ScanError>(())
/// ```
pub trait ParallelFor: Debug + Sync {
    /// How many threads there are. It decides how work is cut up, never what the results are.
    fn threads(&self) -> usize;

    /// Calls `task` once with each number below `tasks`, in any order, and returns when all are done.
    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// The rayon pool of the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rayon;

impl ParallelFor for Rayon {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // One at a time: tasks are few and large.
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}
