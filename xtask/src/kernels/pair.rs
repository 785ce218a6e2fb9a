//! Two at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Compilers take a few hundred MB for a large template, so not as many as there are cores.
const THREADS: usize = 2;

/// The results of `work` in the order of `jobs`, whichever ended first.
pub(crate) fn map<T: Sync, R: Send>(jobs: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (results, received) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS.min(jobs.len()) {
            let (results, next, work) = (results.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    // Received after the scope, so the other end is there.
                    let _ = results.send((index, work(job)));
                }
            });
        }
    });
    drop(results);
    let mut all: Vec<(usize, R)> = received.into_iter().collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_jobs_is_kept() {
        let jobs: Vec<u64> = (0..50).collect();
        let squares = map(&jobs, |job| {
            thread::sleep(std::time::Duration::from_micros(job * 7 % 50));
            job * job
        });
        assert_eq!(squares, jobs.iter().map(|job| job * job).collect::<Vec<_>>());
        assert!(map(&[], |job: &u64| *job).is_empty());
    }
}
