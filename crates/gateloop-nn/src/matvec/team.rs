//! Threads that are already awake.
//!
//! A token is some thirty products of a few dozen microseconds, with pauses as short between them.
//! Waking a sleeping thread takes as long as such a product, so a pool whose threads sleep in the
//! pauses gains nothing. These wait in a loop for a moment before they sleep; and a caller that has
//! done all the work itself goes on at once, whether or not a helper has turned up.

use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a helper waits for more work before it sleeps: the pauses within a token are shorter.
const WAIT: Duration = Duration::from_micros(200);

/// Calls `work` with every index below `tasks`, on all threads that are free; returns when all is
/// done.
pub(super) fn for_each(tasks: usize, work: &(dyn Fn(usize) + Sync)) {
    let team = if tasks < 2 { None } else { free_team() };
    match team {
        Some(team) => team.share(&Job::new(tasks, work)),
        None => (0..tasks).for_each(work),
    }
}

/// The team, unless libtorch is set to one thread, there is but one core, or another caller has it:
/// then all threads are at work anyway.
fn free_team() -> Option<MutexGuard<'static, Team>> {
    if tch::get_num_threads() < 2 {
        return None;
    }
    let team = match team().try_lock() {
        Ok(team) => team,
        // A task failed in an earlier call; the team itself was left in order.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    (!team.helpers.is_empty()).then_some(team)
}

/// What is to be done, on the caller's stack.
struct Job<'a> {
    next: AtomicUsize,
    tasks: usize,
    work: &'a (dyn Fn(usize) + Sync),
    panicked: AtomicBool,
}

impl<'a> Job<'a> {
    fn new(tasks: usize, work: &'a (dyn Fn(usize) + Sync)) -> Self {
        Self { next: AtomicUsize::new(0), tasks, work, panicked: AtomicBool::new(false) }
    }

    /// Takes tasks until none is left.
    fn help(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.tasks {
                return;
            }
            (self.work)(index);
        }
    }
}

/// The helpers, one thread fewer than the machine has cores.
struct Team {
    helpers: Vec<Thread>,
    desk: &'static Desk,
}

/// Where caller and helpers meet.
struct Desk {
    job: AtomicPtr<Job<'static>>,
    /// Counts the jobs: a helper takes part in each once.
    round: AtomicU32,
    /// Helpers at the job, and [`OPEN`] while more may come.
    present: AtomicU32,
    asleep: AtomicU32,
}

const OPEN: u32 = 1 << 31;

fn team() -> &'static Mutex<Team> {
    static TEAM: OnceLock<Mutex<Team>> = OnceLock::new();
    static DESK: Desk = Desk {
        job: AtomicPtr::new(std::ptr::null_mut()),
        round: AtomicU32::new(0),
        present: AtomicU32::new(0),
        asleep: AtomicU32::new(0),
    };
    TEAM.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // A thread that cannot be had is one helper fewer.
        let helpers = (1..cores).filter_map(|n| {
            let named = thread::Builder::new().name(format!("matvec-{n}"));
            named.spawn(|| DESK.serve()).ok().map(|handle| handle.thread().clone())
        });
        Mutex::new(Team { helpers: helpers.collect(), desk: &DESK })
    })
}

impl Team {
    /// Works at the job with whoever comes, until nobody is at it any more.
    fn share(&self, job: &Job<'_>) {
        let desk = self.desk;
        desk.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        // Publishes the job. Sequentially consistent with `asleep`: either a helper that goes to
        // sleep sees the new round, or this thread sees that it sleeps.
        desk.present.store(OPEN, Ordering::Release);
        desk.round.fetch_add(1, Ordering::SeqCst);
        if desk.asleep.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().for_each(Thread::unpark);
        }
        // However this function ends, nobody may be left at the job.
        let closing = Closing(desk);
        job.help();
        drop(closing);
        assert!(!job.panicked.load(Ordering::Relaxed), "a helper's part of the work failed");
    }
}

/// Sends away who has not come yet and waits for who has.
struct Closing(&'static Desk);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.present.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0_u32;
        while self.0.present.load(Ordering::Acquire) != 0 {
            // A helper that has lost its core gets it back sooner if this thread gives way.
            turns += 1;
            if turns.is_multiple_of(1024) {
                thread::yield_now();
            }
            hint::spin_loop();
        }
    }
}

impl Desk {
    /// A helper's life.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            seen = self.next_round(seen);
            if !self.enter() {
                continue;
            }
            // SAFETY: `enter` succeeded, so the caller waits in `Closing` until `present` is counted
            // down again, and the job on its stack is alive.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if catch_unwind(AssertUnwindSafe(|| job.help())).is_err() {
                job.panicked.store(true, Ordering::Relaxed);
            }
            self.present.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until the round is another than `seen`, at first awake, then asleep.
    fn next_round(&self, seen: u32) -> u32 {
        let began = Instant::now();
        loop {
            for _ in 0..256 {
                let round = self.round.load(Ordering::Acquire);
                if round != seen {
                    return round;
                }
                hint::spin_loop();
            }
            if began.elapsed() > WAIT {
                self.asleep.fetch_add(1, Ordering::SeqCst);
                while self.round.load(Ordering::SeqCst) == seen {
                    thread::park();
                }
                self.asleep.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Joins the job on the desk, unless it is closed.
    fn enter(&self) -> bool {
        let join = |present: u32| (present & OPEN != 0).then_some(present + 1);
        self.present.fetch_update(Ordering::Acquire, Ordering::Relaxed, join).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::for_each;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_task_is_done_once_whoever_calls() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2_000 {
                        let done: Vec<AtomicU32> = (0..round % 13).map(|_| 0.into()).collect();
                        for_each(done.len(), &|index| {
                            done[index].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                    }
                });
            }
        });
    }

    #[test]
    fn a_failure_reaches_the_caller_and_the_team_goes_on() {
        for _ in 0..100 {
            let fails = || for_each(8, &|index| assert!(index != 5, "on purpose"));
            assert!(std::panic::catch_unwind(fails).is_err());
        }
        let sum = AtomicU32::new(0);
        for_each(8, &|index| {
            sum.fetch_add(index as u32, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 28);
    }
}
