//! Signs of life: every rank says in the store what it is doing, so that those that are left behind can tell who left.

use crate::environment::Environment;
use crate::error::{Culprit, DistError, Result, Silence};
use crate::store::{PATIENCE, Store, within};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the others' signs of life, in beats.
const BEATS_LOOKED_AT: u32 = 4;

/// The life of the ranks.
pub(crate) struct Health {
    shared: Arc<Shared>,
    beat: Duration,
    /// Dropped, it ends the thread that gives the signs.
    _until: Sender<()>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("beat", &self.beat).finish_non_exhaustive()
    }
}

struct Shared {
    store: Store,
    environment: Environment,
    doing: Mutex<Doing>,
    has_failed: AtomicBool,
    /// Whether the store did not answer: whoever asks it again would wait for ever.
    has_no_store: AtomicBool,
    /// Ranks that were found to be gone.
    gone: Mutex<Vec<usize>>,
}

/// What a rank is at.
#[derive(Debug, Clone, Copy, Default)]
struct Doing {
    number: u64,
    /// None between two operations.
    operation: Option<&'static str>,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, operation } = self;
        match operation {
            Some(operation) => write!(f, "in {operation} number {number}"),
            None => write!(f, "after operation number {number}"),
        }
    }
}

/// What a rank last said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Beat {
    count: u64,
    number: u64,
    doing: String,
}

impl Beat {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (count, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { count, number, doing: parts.next()?.to_owned() })
    }
}

impl Health {
    /// Begins to give signs of life, one a `beat`, over a connection of its own.
    pub(crate) fn start(environment: &Environment, store: Store, beat: Duration) -> Result<Self> {
        let doing = Mutex::new(Doing::default());
        let shared = Shared {
            store,
            environment: environment.clone(),
            doing,
            has_failed: AtomicBool::new(false),
            has_no_store: AtomicBool::new(false),
            gone: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let (until, ended) = mpsc::channel::<()>();
        let giving = Arc::clone(&shared);
        let work = move || {
            let mut count = 0_u64;
            loop {
                count += 1;
                // Who cannot reach the store finds that out at the next operation.
                let _ = giving.give_sign(count);
                if ended.recv_timeout(beat) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("gateloop-health".to_owned()).spawn(work);
        started.map_err(|source| DistError::Process {
            rank: environment.rank,
            action: "watched",
            source,
        })?;
        Ok(Self { shared, beat, _until: until })
    }

    /// Notes that an operation begins, and gives its number.
    pub(crate) fn begin(&self, operation: &'static str) -> u64 {
        let mut doing = self.shared.doing.lock().unwrap_or_else(PoisonError::into_inner);
        doing.number += 1;
        doing.operation = Some(operation);
        doing.number
    }

    /// Notes that it has ended.
    pub(crate) fn end(&self) {
        self.shared.doing.lock().unwrap_or_else(PoisonError::into_inner).operation = None;
    }

    /// Whether an operation has failed, so that this rank cannot go on with the others.
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Acquire)
    }

    /// Tells the others why this rank ends.
    pub(crate) fn fail(&self, reason: &str) {
        if !self.shared.has_failed.swap(true, Ordering::AcqRel) {
            let key = format!("failed/{}", self.shared.environment.rank);
            let _ = self.shared.store.set(&key, &one_line(reason));
        }
    }

    /// Tells the others that this rank ends: because all is done, unless it has failed.
    pub(crate) fn leave(&self) {
        if self.shared.has_no_store.load(Ordering::Acquire) {
            return;
        }
        let what = if self.has_failed() { "ended" } else { "left" };
        let _ = self.shared.store.set(&format!("{what}/{}", self.shared.environment.rank), "");
    }

    /// Why an operation of this rank failed: who gives no sign of life, who ended, who is not there yet.
    pub(crate) fn culprits(&self, number: u64) -> Vec<Culprit> {
        // The others must not take this rank, which only suffers, for the one to blame.
        let shared = Arc::clone(&self.shared);
        self.shared.has_failed.store(true, Ordering::Release);
        let (wait, has_agent) = (self.beat * BEATS_LOOKED_AT, shared.environment.has_agent);
        let (rank, look) = (shared.environment.rank, move || {
            let _ = shared.store.set(&format!("suffers/{}", shared.environment.rank), "");
            shared.look(number, wait)
        });
        let found = within(wait + PATIENCE, look);
        let has_answered = matches!(found, Some(Ok(_)));
        self.shared.has_no_store.store(!has_answered, Ordering::Release);
        match found {
            Some(Ok(culprits)) => culprits,
            // The store went with its keeper.
            _ if !has_agent && rank != 0 => {
                vec![Culprit {
                    rank: 0,
                    silence: Silence::Gone {
                        last: "keeping the store, which does not answer".into(),
                    },
                }]
            }
            _ => Vec::new(),
        }
    }

    /// Waits until the others have ended or nothing is heard of them, for as long as the store is needed that this rank
    /// keeps.
    pub(crate) fn wait_for_others(&self) {
        let shared = &self.shared;
        let silence = self.beat * BEATS_LOOKED_AT;
        let deadline = Instant::now() + silence * 2 + PATIENCE;
        let mut heard: Vec<(Instant, Option<Beat>)> =
            vec![(Instant::now(), None); shared.environment.world_size];
        while Instant::now() < deadline {
            let mut waits = false;
            for rank in shared.others().filter(|rank| !shared.is_gone(*rank)) {
                let told = ["left", "ended"].map(|what| format!("{what}/{rank}"));
                if told.iter().any(|key| matches!(shared.store.get(key), Ok(Some(_)))) {
                    continue;
                }
                let beat = shared.beat(rank).ok().flatten();
                let (since, last) = &mut heard[rank];
                if beat != *last {
                    (*since, *last) = (Instant::now(), beat);
                }
                waits |= since.elapsed() < silence;
            }
            if !waits {
                return;
            }
            thread::sleep(self.beat / 10);
        }
    }
}

impl Shared {
    fn give_sign(&self, count: u64) -> Result<()> {
        let doing = *self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        let (rank, number) = (self.environment.rank, doing.number);
        self.store.set(&format!("beat/{rank}"), &format!("{count} {number} {doing}"))
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let own = self.environment.rank;
        (0..self.environment.world_size).filter(move |rank| *rank != own)
    }

    fn is_gone(&self, rank: usize) -> bool {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).contains(&rank)
    }

    fn beat(&self, rank: usize) -> Result<Option<Beat>> {
        Ok(self.store.get(&format!("beat/{rank}"))?.as_deref().and_then(Beat::parse))
    }

    fn look(&self, number: u64, wait: Duration) -> Result<Vec<Culprit>> {
        let before: Vec<_> = self.others().map(|rank| self.beat(rank)).collect::<Result<_>>()?;
        thread::sleep(wait);
        let mut culprits = Vec::new();
        for (rank, before) in self.others().zip(before) {
            if let Some(silence) = self.judge(rank, before.as_ref(), number)? {
                if matches!(silence, Silence::Gone { .. }) {
                    self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(rank);
                }
                culprits.push(Culprit { rank, silence });
            }
        }
        Ok(culprits)
    }

    fn judge(&self, rank: usize, before: Option<&Beat>, number: u64) -> Result<Option<Silence>> {
        if let Some(reason) = self.store.get(&format!("failed/{rank}"))? {
            return Ok(Some(Silence::Failed { reason }));
        }
        if self.store.get(&format!("left/{rank}"))?.is_some() {
            return Ok(Some(Silence::Left));
        }
        if self.store.get(&format!("suffers/{rank}"))?.is_some() {
            return Ok(None);
        }
        let now = self.beat(rank)?;
        let last = now.as_ref().map_or("starting".to_owned(), |beat| beat.doing.clone());
        Ok(match now {
            Some(beat) if Some(&beat) != before => {
                (beat.number < number).then_some(Silence::Behind { last })
            }
            _ => Some(Silence::Gone { last }),
        })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
