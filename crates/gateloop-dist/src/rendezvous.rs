//! How the ranks meet: each says that it is there, and all say the same of what must be alike.

use crate::environment::Environment;
use crate::error::{Culprit, DistError, Result, Silence};
use crate::store::{PATIENCE, Store, store_error, within};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks for ranks that are not there yet.
const POLL: Duration = Duration::from_millis(20);

/// Says that this rank is there; errs if it is already.
pub(crate) fn claim(store: &Store, environment: &Environment) -> Result<()> {
    let Environment { rank, world_size, .. } = *environment;
    let name = format!("rank/{rank}");
    // A process of its own, or another try of this one's, is told from another's by its number.
    let me = format!("process {} of {world_size} ranks", std::process::id());
    if !store.claim(&name, &me)? {
        let other = store.get(&name)?.unwrap_or_default();
        return Err(DistError::Duplicate { rank, other });
    }
    Ok(())
}

/// Waits until all ranks are there, and errs if one of them has another number of ranks in mind.
pub(crate) fn wait_for_all(
    store: &Arc<Store>,
    environment: &Environment,
    timeout: Duration,
) -> Result<()> {
    let own = format!("{} ranks", environment.world_size);
    let own_rank = environment.rank;
    // Looked at as it comes: who has another number in mind waits for others than this rank does.
    let check = move |rank: usize, said: &str| {
        let theirs = said.rsplit(" of ").next().unwrap_or_default().to_owned();
        if theirs == own {
            return Ok(());
        }
        let (what, ours) = ("WORLD_SIZE for".to_owned(), own.clone());
        Err(DistError::Mismatch { rank, own_rank, what, theirs, ours })
    };
    said_by(store, environment, "rank", environment.world_size, timeout, check).map(|_| ())
}

/// Errs unless all ranks give the same value; the one that differs from this one is named.
pub(crate) fn agree(
    store: &Arc<Store>,
    environment: &Environment,
    (number, what): (u64, &str),
    value: &str,
    timeout: Duration,
) -> Result<()> {
    let topic = format!("agree/{number}/{what}");
    store.set(&format!("{topic}/{}", environment.rank), value)?;
    let said = said_by(store, environment, &topic, environment.world_size, timeout, |_, _| Ok(()))?;
    let differs = said.iter().position(|theirs| theirs != value);
    let Some(rank) = differs else { return Ok(()) };
    Err(DistError::Mismatch {
        rank,
        own_rank: environment.rank,
        what: what.to_owned(),
        theirs: said[rank].clone(),
        ours: value.to_owned(),
    })
}

/// What rank 0 says on a topic: `value` there, on the others what it said.
pub(crate) fn hear_first(
    store: &Arc<Store>,
    environment: &Environment,
    (number, topic): (u64, &str),
    value: &str,
    timeout: Duration,
) -> Result<String> {
    let topic = format!("tell/{number}/{topic}");
    if environment.rank == 0 {
        store.set(&format!("{topic}/0"), value)?;
        return Ok(value.to_owned());
    }
    Ok(said_by(store, environment, &topic, 1, timeout, |_, _| Ok(()))?.remove(0))
}

/// What the first `count` ranks say on a topic, once they have, each of which `check` has seen; within the timeout even if
/// the store does not answer.
fn said_by(
    store: &Arc<Store>,
    environment: &Environment,
    topic: &str,
    count: usize,
    timeout: Duration,
    check: impl Fn(usize, &str) -> Result<()> + Send + 'static,
) -> Result<Vec<String>> {
    let (shared, own, topic) = (Arc::clone(store), environment.clone(), topic.to_owned());
    let deadline = Instant::now() + timeout;
    let waited = move || poll(&shared, &own, &topic, count, (deadline, timeout), &check);
    let limit = timeout + PATIENCE;
    within(limit, waited).unwrap_or_else(|| {
        let message = format!("no answer within {} s", limit.as_secs_f64());
        Err(store_error(environment, "waiting for the other ranks".to_owned(), message))
    })
}

fn poll(
    store: &Store,
    environment: &Environment,
    topic: &str,
    count: usize,
    (deadline, timeout): (Instant, Duration),
    check: &dyn Fn(usize, &str) -> Result<()>,
) -> Result<Vec<String>> {
    let mut said: Vec<Option<String>> = vec![None; count];
    loop {
        for (rank, said) in said.iter_mut().enumerate().filter(|(_, said)| said.is_none()) {
            *said = store.get(&format!("{topic}/{rank}"))?;
            said.as_deref().map_or(Ok(()), |said| check(rank, said))?;
            // Whoever failed on its way here will not come.
            if said.is_none()
                && let Some(reason) = store.get(&format!("failed/{rank}"))?
            {
                let culprits = vec![Culprit { rank, silence: Silence::Failed { reason } }];
                return Err(DistError::Operation {
                    rank: environment.rank,
                    operation: "meeting the other ranks",
                    number: 0,
                    culprits,
                    message: format!("for {}", topic.rsplit('/').next().unwrap_or(topic)),
                });
            }
        }
        if let Some(said) = said.iter().cloned().collect() {
            return Ok(said);
        }
        if Instant::now() >= deadline {
            let missing = (0..count).filter(|rank| said[*rank].is_none()).collect();
            let world_size = environment.world_size;
            return Err(DistError::Missing { missing, world_size, waited: timeout });
        }
        thread::sleep(POLL);
    }
}
