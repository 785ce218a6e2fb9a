//! libtorch's threads, lent to the scan.

use gateloop_scan::ParallelFor;
use std::ffi::{c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

unsafe extern "C" {
    fn gateloop_threads() -> c_int;
    fn gateloop_on_threads(
        threads: c_uint,
        body: extern "C" fn(*mut c_void),
        data: *mut c_void,
    ) -> c_int;
}

/// The threads of libtorch's operations on the CPU, as many as `tch::get_num_threads` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TorchThreads;

/// Tasks that wait, for whichever thread comes next.
struct Queue<'t> {
    next: AtomicUsize,
    tasks: usize,
    task: &'t (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

impl Queue<'_> {
    fn work(&self) {
        let work = || {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= self.tasks {
                    break;
                }
                (self.task)(index);
            }
        };
        // A panic must not cross into C; it goes on in the thread that asked for the work.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.next.store(self.tasks, Ordering::Relaxed);
            if let Ok(mut place) = self.panic.lock() {
                *place = Some(panic);
            }
        }
    }
}

extern "C" fn work(queue: *mut c_void) {
    // SAFETY: `for_each` hands over a queue that outlives the call.
    unsafe { &*queue.cast::<Queue<'_>>().cast_const() }.work();
}

impl ParallelFor for TorchThreads {
    fn threads(&self) -> usize {
        // SAFETY: reads a number.
        unsafe { gateloop_threads() }.max(1) as usize
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let queue = Queue { next: AtomicUsize::new(0), tasks, task, panic: Mutex::new(None) };
        let threads = self.threads().min(tasks);
        let started = threads > 1 && {
            let data = (&raw const queue).cast_mut().cast::<c_void>();
            // SAFETY: the call returns when all threads have left `work`, which only reads the queue.
            unsafe { gateloop_on_threads(threads as c_uint, work, data) != 0 }
        };
        if !started {
            queue.work();
        }
        if let Some(panic) = queue.panic.into_inner().ok().flatten() {
            resume_unwind(panic);
        }
    }
}

/// Calls `task` with the number of each piece of `first` and `second`, of `lens` elements (the last ones
/// may be shorter), on libtorch's threads.
pub(crate) fn for_each_piece<A: Send, B: Send>(
    (first, second): (&mut [A], &mut [B]),
    lens: [usize; 2],
    task: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let pieces: Vec<Mutex<(&mut [A], &mut [B])>> =
        first.chunks_mut(lens[0]).zip(second.chunks_mut(lens[1])).map(Mutex::new).collect();
    TorchThreads.for_each(pieces.len(), &|i| {
        // Nobody else asks for this piece.
        if let Ok(mut piece) = pieces[i].lock() {
            let (first, second) = &mut *piece;
            task(i, first, second);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::TorchThreads;
    use gateloop_scan::ParallelFor;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_task_is_run_once() {
        for tasks in [0, 1, 2, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            TorchThreads.for_each(tasks, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let run = || TorchThreads.for_each(9, &|i| assert!(i != 5, "task five"));
        let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
        assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("task five")));
        // And the threads are as good as before.
        TorchThreads.for_each(9, &|_| ());
    }
}
